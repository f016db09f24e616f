"""Standard output and error that take every character and survive readers and disks that fail."""

import codecs
import io
import os
import select
import sys
from typing import Any, TextIO

_SUBSTITUTES = dict(zip("…–−─×‖≈≠¦▸█▉▊▋▌▍▎▏±·Δ✗✓↑↓", "~---x|~!|>########/|Dxv^v", strict=True))
"""ASCII characters of one cell each, as rich has laid out the lines by then; rich itself replaces
boxes and bars."""


class FaultTolerantFile(io.FileIO):
    """File that drops what cannot be written, so that hours of work do not end in their report."""

    error: OSError | None = None
    """First error of a write."""

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:
                # Another program has made the terminal or the pipe non-blocking.
                select.select([], [self], [])
        except OSError as error:
            self.error = self.error or error
            return len(data)
        return written


def make_streams_fault_tolerant() -> FaultTolerantFile | None:
    """Replace `sys.stdout` and `sys.stderr`; return stdout's file, None if stdout is redirected.

    Call it before any file is opened, which would get the number of a descriptor that is closed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Read-only: writing to it fails as it would have done.
            os.open(os.devnull, os.O_RDONLY)
    if sys.stderr is sys.__stderr__:
        sys.stderr, _ = _fault_tolerant(2, sys.stderr)
    if sys.stdout is not sys.__stdout__:
        return None
    sys.stdout, file = _fault_tolerant(1, sys.stdout)
    return file


def _fault_tolerant(descriptor: int, stream: TextIO | None) -> tuple[TextIO, FaultTolerantFile]:
    """Stream and file to replace Python's, which is None for a descriptor that was closed."""
    file = FaultTolerantFile(descriptor, "w", closefd=False)
    text = io.TextIOWrapper(
        io.BufferedWriter(file),
        stream.encoding if stream else "utf-8",
        errors=_substitute.__name__,
        line_buffering=file.isatty(),
    )
    return text, file


def _substitute(error: UnicodeError) -> tuple[str, int]:
    """Codec error handler: similar ASCII for what the encoding lacks, else a backslash escape."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    similar = (_SUBSTITUTES.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text)
    return "".join(similar), error.end


codecs.register_error(_substitute.__name__, _substitute)
