"""Trace files: append each record as it happens, and read whole records back."""

import contextlib
import fcntl
from pathlib import Path

import msgspec

from ..errors import UserError, reason
from ..files import PRIVATE, make_private_directory, open_new
from ..output_files import write_all, write_new
from .checks import check_event
from .records import MAX_LANES, VERSION, Event, Header
from .trace import Trace

SUFFIX = ".trace.jsonl"

MAX_HEADER_BYTES = 64 << 20
"""Limit of a header's line where the rest of the file is not read; a prompt of a million tokens
takes a tenth of it."""

DAMAGE = (msgspec.DecodeError, ValueError, RecursionError)
"""Errors of a line that is no record: also one not in UTF-8, or nested too deeply."""


class Preamble(msgspec.Struct):
    """Fields of the header of traces and evaluations, in every version."""

    kind: str
    version: int


class TraceWriter:
    """Writer of a new trace file; each line is with the operating system when `write` returns."""

    def __init__(self, path: Path, header: Header) -> None:
        """Create the file with its header. Raises `OSError` if it exists or cannot be written."""
        self.path = path
        make_private_directory(path.parent)
        self._file = open_new(path, PRIVATE)
        # For `is_being_written`; it ends with the process. Not every file system has locks.
        with contextlib.suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._encoder = msgspec.json.Encoder()
        self.write(header)

    def write(self, record: Header | Event) -> None:
        """Append a line. After an `OSError` the file may end in a part of it."""
        write_all(self._file, self._encoder.encode(record) + b"\n")

    def close(self) -> None:
        self._file.close()


def write_trace(path: Path, trace: Trace) -> None:
    """Write a trace with all its branches as a new file.

    Raises `UserError` if the file exists or cannot be written.
    """
    lines = [msgspec.json.encode(record) for record in (trace.header, *trace.events())]
    write_new(path, b"".join(line + b"\n" for line in lines), private=True)


def is_being_written(path: Path) -> bool:
    """Whether a `TraceWriter` of any process has the file open; false if that cannot be told."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def read_header(path: Path) -> Header:
    """Read the first line of a trace file. Raises `UserError` as `read_trace` does."""
    try:
        with path.open("rb") as file:
            return parse_header(path, file.readline(MAX_HEADER_BYTES))
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error


def read_trace(path: Path) -> Trace:
    """Read a trace file; a last line that is not whole is taken as the end.

    Raises `UserError` if the file cannot be read, is not a trace, was made by a newer version,
    or is damaged before its last line.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error
    trace = Trace(parse_header(path, lines[0]))
    decoder = msgspec.json.Decoder(Event)
    # A whole line ends in a newline, so what follows the last newline is empty or cut short.
    for number, line in enumerate(lines[1:-1], start=2):
        try:
            event = decoder.decode(line)
            check_event(event, trace.header)
            trace.apply(event)
        except DAMAGE as error:
            raise damaged_line(path, number, error) from error
    return trace


def damaged_line(path: Path, number: int, error: Exception) -> UserError:
    return UserError(
        f"line {number} of {path} is damaged ({error}); "
        f"`head -n {number - 1}` of it is a whole trace"
    )


def parse_header(path: Path, line: bytes) -> Header:
    """Header in the first line of the file at `path`. Raises `UserError` if it is none."""
    try:
        preamble = msgspec.json.decode(line, type=Preamble)
    except DAMAGE as error:
        raise UserError(
            f"{path} is not a prunetui trace; `prunetui record -o FILE{SUFFIX}` makes one"
        ) from error
    if preamble.kind == "evaluation":
        raise UserError(f"{path} is an evaluation; `prunetui show` opens it")
    if preamble.kind != "header":
        raise UserError(f"{path} is not a whole trace: its first line is no header")
    if preamble.version > VERSION:
        raise UserError(
            f"{path} is a trace of version {preamble.version} and this prunetui reads up to "
            f"version {VERSION}; install a newer prunetui"
        )
    try:
        header = msgspec.json.decode(line, type=Header)
    except DAMAGE as error:
        raise UserError(f"the header of {path} is damaged ({error})") from error
    if not 0 < len(header.lanes) <= MAX_LANES:
        raise UserError(
            f"the header of {path} is damaged (it names {len(header.lanes)} lanes, and a session "
            f"has 1 to {MAX_LANES})"
        )
    return header
