"""Standard output and error that take every character, and that no reader or disk can break."""

import codecs
import io
import os
import select
import sys
from typing import Any, TextIO

_LOOK_ALIKES = dict(zip("…–−─×‖≈≠¦▸█▉▊▋▌▍▎▏", "~---x|~!|>########", strict=True))
"""In one cell, as rich has laid out the lines by then; rich itself sees to boxes and bars."""


class LastingFile(io.FileIO):
    """Takes what cannot be written as if it were, so that work of hours does not end in its
    report; `error` says why the first of it was not."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:
                # Another program has made the terminal or the pipe non-blocking.
                select.select([], [self], [])
        except OSError as error:
            self.error = self.error or error
            return len(data)
        return written


def keep_standard_streams() -> LastingFile | None:
    """Make stdout and stderr last; the file under stdout, or None if something has replaced it.

    To be called before any file is opened: it would get the number of one that is closed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # For reading alone: what is written to it fails as it would have done.
            os.open(os.devnull, os.O_RDONLY)
    if sys.stderr is sys.__stderr__:
        sys.stderr, _ = _lasting(2, sys.stderr)
    if sys.stdout is not sys.__stdout__:
        return None
    sys.stdout, file = _lasting(1, sys.stdout)
    return file


def _lasting(descriptor: int, stream: TextIO | None) -> tuple[TextIO, LastingFile]:
    """None is what Python has for a descriptor that was closed."""
    file = LastingFile(descriptor, "w", closefd=False)
    text = io.TextIOWrapper(
        io.BufferedWriter(file),
        stream.encoding if stream else "utf-8",
        errors=_similar.__name__,
        line_buffering=file.isatty(),
    )
    return text, file


def _similar(error: UnicodeError) -> tuple[str, int]:
    """What the terminal's encoding lacks: something like it, or the number of the character."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    similar = (_LOOK_ALIKES.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text)
    return "".join(similar), error.end


codecs.register_error(_similar.__name__, _similar)
