"""The vectors h and z of every step, where recording was asked to keep them.

Beside NAME.trace.jsonl stands NAME.h.bin (and NAME.z.bin): a line of JSON, the `Layout`, then a
block of bytes per step in the order of decoding. A step's `block` says which is its own, so what
a rewind or another branch left behind is not read. A block is written before its step's line, so
a killed session loses none that its trace names.
"""

import json
import math
import struct
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import msgspec

from ..errors import UserError, reason
from ..files import PRIVATE, open_new
from ..output_files import check_writable, new_file, write_all
from .file import SUFFIX
from .records import Header, Plain, Step
from .trace import Trace

Space = Literal["h", "z"]
SPACES: tuple[Space, ...] = get_args(Space)

DTYPE_BYTES = {"F32": 4, "BF16": 2, "F16": 2}
"""By safetensors' names."""

LONGEST_LAYOUT = 1024
"""Bytes of the line."""


class Layout(Plain, frozen=True):
    dtype: Literal["F32", "BF16", "F16"]
    shape: tuple[int, int]
    """Of a block: rows by the width of the space. The rows are those of `row_names`."""

    @property
    def bytes(self) -> int:
        """Of a block."""
        return DTYPE_BYTES[self.dtype] * math.prod(self.shape)


def vectors_path(trace: Path, space: Space) -> Path:
    return trace.with_name(f"{trace.name.removesuffix(SUFFIX)}.{space}.bin")


def row_names(header: Header) -> list[str]:
    """Every lane, and in context both the variants again, on the baseline's tokens."""
    names = [lane.name for lane in header.lanes]
    return names + ([f"{name} (local)" for name in names[1:]] if header.context == "both" else [])


class VectorWriter:
    """Appends blocks to a new file; each reaches the operating system before `write` returns."""

    def __init__(self, path: Path, layout: Layout) -> None:
        """Raises `OSError` if the file exists or cannot be made."""
        self._file = open_new(path, PRIVATE)
        self.write(msgspec.json.encode(layout) + b"\n")

    def write(self, block: bytes) -> None:
        """Raises `OSError`, after which the file ends in a block that may not be whole."""
        write_all(self._file, block)

    def close(self) -> None:
        self._file.close()


class _Blocks:
    """A file of vectors, to be read."""

    def __init__(self, path: Path) -> None:
        """Raises `UserError` if it cannot be read."""
        self._path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise UserError(f"cannot read {path}: {reason(error)}") from error
        try:
            self.layout = msgspec.json.decode(self._file.readline(LONGEST_LAYOUT), type=Layout)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.close()
            raise UserError(f"{path} holds no vectors of a trace") from error
        self._first = self._file.tell()
        self._size = path.stat().st_size

    def read(self, number: int) -> bytes:
        """Raises `UserError` if the file has no such block."""
        size = self.layout.bytes
        begin = self._first + number * size
        if number < 0 or size <= 0 or begin + size > self._size:
            raise UserError(
                f"{self._path} is damaged or not of this trace: it has no whole block {number}"
            )
        self._file.seek(begin)
        return self._file.read(size)

    def close(self) -> None:
        self._file.close()


def write_safetensors(trace: Trace, path: Path, output: Path) -> None:
    """Write what was kept beside the trace at `path` as a new file, a block in memory at a time.

    Its tensors are `h` [steps, rows, hidden] and `z` [steps, rows, vocabulary] in the model's
    dtype, NaN where a lane had ended, and `step`, int64 [steps]: the trace's steps whose vectors
    were kept. The metadata names the rows.

    Raises `UserError` if nothing was kept or a file cannot be read or written.
    """
    steps = [(step, step.block) for step in trace.steps if step.block is not None]
    asked = trace.header.options.keep if trace.header.options else ()
    files = {space: vectors_path(path, space) for space in SPACES}
    # One that is not there any more is missed.
    kept = {space: file for space, file in files.items() if space in asked or file.exists()}
    if not steps or not kept:
        raise UserError(
            f"no vectors were kept beside {path}; `prunetui record --keep h,z` keeps them"
        )
    check_writable(output)
    blocks: dict[str, _Blocks] = {}
    try:
        for space, file in kept.items():
            blocks[space] = _Blocks(file)
        rows = row_names(trace.header)
        for space, of in blocks.items():
            if of.layout.shape[0] != len(rows):
                raise UserError(f"{kept[space]} is not of this trace: its rows are others")
        with new_file(output) as file:
            _write(file, trace.header, rows, steps, blocks)
    finally:
        for of in blocks.values():
            of.close()


def _write(
    file: BinaryIO,
    header: Header,
    rows: list[str],
    steps: list[tuple[Step, int]],
    blocks: dict[str, _Blocks],
) -> None:
    """The format of safetensors: the length of the head, the head in JSON, the tensors' bytes."""
    count = len(steps)
    head: dict[str, object] = {
        "__metadata__": {
            "model": header.model.name,
            "context": header.context,
            "rows": json.dumps(rows),
        },
        "step": {"dtype": "I64", "shape": [count], "data_offsets": [0, end := 8 * count]},
    }
    for space, of in blocks.items():
        begin, end = end, end + count * of.layout.bytes
        shape = [count, *of.layout.shape]
        head[space] = {"dtype": of.layout.dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(head).encode()
    # The tensors are to begin at a multiple of 8 bytes.
    text += b" " * (-len(text) % 8)
    write_all(file, struct.pack("<Q", len(text)) + text)
    write_all(file, struct.pack(f"<{count}q", *(step.step for step, _ in steps)))
    for of in blocks.values():
        for _, number in steps:
            write_all(file, of.read(number))
