"""Files of the vectors h and z of every step, if `--keep` asks for them.

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
"""Bytes of a number, by safetensors' names."""

LONGEST_LAYOUT = 1024
"""Maximum bytes of the line that holds the `Layout`."""


class Layout(Plain, frozen=True):
    """Format of a file's blocks, on its first line."""

    dtype: Literal["F32", "BF16", "F16"]
    shape: tuple[int, int]
    """Rows, as in `row_names`, by the width of the space."""

    @property
    def bytes(self) -> int:
        """Size of a block."""
        return DTYPE_BYTES[self.dtype] * math.prod(self.shape)


def vectors_path(trace: Path, space: Space) -> Path:
    return trace.with_name(f"{trace.name.removesuffix(SUFFIX)}.{space}.bin")


def row_names(header: Header) -> list[str]:
    """Names of a block's rows: all lanes, in context both followed by the variants' local rows."""
    names = [lane.name for lane in header.lanes]
    return names + ([f"{name} (local)" for name in names[1:]] if header.context == "both" else [])


class VectorWriter:
    """Writer of a new vector file; each block is with the operating system when `write` returns."""

    def __init__(self, path: Path, layout: Layout) -> None:
        """Create the file with its layout. Raises `OSError` if it exists or cannot be written."""
        self._file = open_new(path, PRIVATE)
        self.write(msgspec.json.encode(layout) + b"\n")

    def write(self, block: bytes) -> None:
        """Append a block. After an `OSError` the file may end in a part of it."""
        write_all(self._file, block)

    def close(self) -> None:
        self._file.close()


class _VectorReader:
    """Reader of a vector file."""

    def __init__(self, path: Path) -> None:
        """Open the file and read its layout. Raises `UserError` if it cannot be read."""
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
        """Bytes of a block, by its index. Raises `UserError` if the file has no such block."""
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
    """Write the vectors beside the trace at `path` as a safetensors file, block by block.

    Its tensors are `h` [steps, rows, hidden] and `z` [steps, rows, vocabulary] in the model's
    dtype, NaN where a lane had ended, and `step`, int64 [steps]: the trace's steps whose vectors
    were kept. The metadata names the rows.

    Raises `UserError` if no vectors were kept or a file cannot be read or written.
    """
    steps = [(step, step.block) for step in trace.steps if step.block is not None]
    recorded = trace.header.options.keep if trace.header.options else ()
    paths = {space: vectors_path(path, space) for space in SPACES}
    # A recorded file that is gone raises, instead of being left out.
    files = {space: file for space, file in paths.items() if space in recorded or file.exists()}
    if not steps or not files:
        raise UserError(
            f"no vectors were kept beside {path}; `prunetui record --keep h,z` keeps them"
        )
    check_writable(output)
    readers: dict[str, _VectorReader] = {}
    try:
        for space, file in files.items():
            readers[space] = _VectorReader(file)
        rows = row_names(trace.header)
        for space, reader in readers.items():
            if reader.layout.shape[0] != len(rows):
                raise UserError(f"{files[space]} is not of this trace: its rows are others")
        with new_file(output) as file:
            _write(file, trace.header, rows, steps, readers)
    finally:
        for reader in readers.values():
            reader.close()


def _write(
    file: BinaryIO,
    header: Header,
    rows: list[str],
    steps: list[tuple[Step, int]],
    readers: dict[str, _VectorReader],
) -> None:
    """Write the safetensors format: length of the header, header in JSON, the tensors' bytes."""
    count = len(steps)
    head: dict[str, object] = {
        "__metadata__": {
            "model": header.model.name,
            "context": header.context,
            "rows": json.dumps(rows),
        },
        "step": {"dtype": "I64", "shape": [count], "data_offsets": [0, end := 8 * count]},
    }
    for space, reader in readers.items():
        begin, end = end, end + count * reader.layout.bytes
        shape = [count, *reader.layout.shape]
        head[space] = {"dtype": reader.layout.dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(head).encode()
    # safetensors requires the tensors to begin at a multiple of 8 bytes.
    text += b" " * (-len(text) % 8)
    write_all(file, struct.pack("<Q", len(text)) + text)
    write_all(file, struct.pack(f"<{count}q", *(step.step for step, _ in steps)))
    for reader in readers.values():
        for _, block in steps:
            write_all(file, reader.read(block))
