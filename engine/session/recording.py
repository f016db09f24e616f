"""The files that a session records to."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..errors import reason
from ..trace.file import SUFFIX, TraceWriter
from ..trace.records import Event, Header
from ..trace.vector_file import Layout, Space, VectorWriter, vectors_path

log = logging.getLogger(__name__)

DTYPES: dict[torch.dtype, Literal["F32", "BF16", "F16"]] = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}


class Recording:
    """Writes each trace of a session to its own file: the one named, then NAME-2, NAME-3, …

    `path` is the newest file, `None` if there is none. Once writing fails, `error` says why and
    events go nowhere until the next trace begins.
    """

    def __init__(self, named: Path | None, spaces: Sequence[Space] = ()) -> None:
        self._named = named
        self.spaces = spaces
        """Spaces whose vectors are recorded too, in files beside the trace."""
        self._writer: TraceWriter | None = None
        self._vectors: dict[Space, VectorWriter] = {}
        self._blocks = 0
        self.path: Path | None = None
        self.error: str | None = None

    def begin(self, header: Header) -> None:
        self.close()
        if self._named is None:
            return
        path = _free_name(self._named, self.spaces)
        try:
            self._writer = TraceWriter(path, header)
            self.path = path
            self.error = None
        except OSError as error:
            self._give_up(path, error)

    def write(self, event: Event) -> None:
        if self._writer is None:
            return
        try:
            self._writer.write(event)
        except OSError as error:
            self._give_up(self._writer.path, error)

    def keep(self, vectors: dict[Space, Tensor], running: list[bool]) -> int | None:
        """Write a step's vectors, [rows, width] each, if they are recorded; return the `block`
        of the step, which is written after them. Rows that do not run become NaN."""
        if self._writer is None or not self.spaces:
            return None
        # All of them first: where memory runs out, no file has a block more than the others.
        blocks: dict[Space, bytes] = {
            space: vector_bytes(vectors[space], running) for space in self.spaces
        }
        path = self._writer.path
        try:
            for space, block in blocks.items():
                path = vectors_path(self._writer.path, space)
                if space not in self._vectors:
                    rows, width = vectors[space].shape
                    layout = Layout(dtype=DTYPES[vectors[space].dtype], shape=(rows, width))
                    self._vectors[space] = VectorWriter(path, layout)
                self._vectors[space].write(block)
        except OSError as error:
            self._give_up(path, error)
            return None
        self._blocks += 1
        return self._blocks - 1

    def close(self) -> None:
        for writer in self._vectors.values():
            writer.close()
        self._vectors, self._blocks = {}, 0
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _give_up(self, path: Path, error: OSError) -> None:
        log.error("recording to %s", path, exc_info=error)
        self.error = f"not recorded: cannot write {path} ({reason(error)})"
        self.close()


def vector_bytes(rows: Tensor, running: list[bool]) -> bytes:
    """Bytes of vectors, [rows, width], in row order; rows that do not run become NaN."""
    ended = torch.tensor(running, device=rows.device).logical_not()
    rows = rows.masked_fill(ended[:, None], math.nan).cpu().contiguous()
    # numpy has no bfloat16.
    return rows.view(torch.uint8).numpy().tobytes()


def _free_name(named: Path, spaces: Sequence[Space]) -> Path:
    stem = named.name.removesuffix(SUFFIX)
    suffix = named.name[len(stem) :]
    path, number = named, 1
    while path.exists() or any(vectors_path(path, space).exists() for space in spaces):
        number += 1
        path = named.with_name(f"{stem}-{number}{suffix}")
    return path
