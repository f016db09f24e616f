"""Outlines of traces that were read before, in a file of the cache directory.

A trace of 100 MB takes a quarter of a second to read, and a directory may have hundreds.
"""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import msgspec
import platformdirs

from ...engine.errors import UserError
from ...engine.trace.outline import Outline, ReadingCancelled, read_outline
from .state_files import read_json, write_json

log = logging.getLogger("prunetui")

FILE = "outlines-1.json"
"""File's name, with a number that is raised when an outline comes to say something else."""

MAX_ENTRIES = 5000
SAVE_SECONDS = 2.0


class _Entry(msgspec.Struct, frozen=True):
    """Outline of a trace that had this size and time, or what is wrong with it."""

    bytes: int
    modified: int
    outline: Outline | None
    problem: str


class OutlineCache:
    """Outlines by path, for traces that have not changed; used by one thread at a time."""

    def __init__(self) -> None:
        self._path = platformdirs.user_cache_path("prunetui") / FILE
        # A damaged file is replaced: all of it can be read again.
        self._entries: dict[str, _Entry] = {}
        with contextlib.suppress(UserError):
            self._entries = read_json(self._path, dict[str, _Entry], {})
        self._changed = False
        self._saved = monotonic()

    def known(self, path: Path, size: int, modified: int) -> tuple[Outline | None, str]:
        """Return the outline or the problem of a trace of this size and time; neither if it is
        not known."""
        entry = self._entries.get(str(path.resolve()))
        if entry is None or (entry.bytes, entry.modified) != (size, modified):
            return None, ""
        return entry.outline, entry.problem

    def read(
        self, path: Path, size: int, modified: int, cancelled: Callable[[], bool]
    ) -> tuple[Outline | None, str]:
        """Read a trace that had this size and time when it was listed; neither if cancelled."""
        outline, problem = None, ""
        try:
            outline = read_outline(path, cancelled)
        except ReadingCancelled:
            return None, ""
        except UserError as error:
            if isinstance(error.__cause__, OSError):
                # Of the file system, not of the file.
                return None, str(error)
            problem = str(error)
        name = str(path.resolve())
        self._entries.pop(name, None)
        self._entries[name] = _Entry(size, modified, outline, problem)
        self._changed = True
        if monotonic() - self._saved > SAVE_SECONDS:
            self.save()
        return outline, problem

    def save(self) -> None:
        """Write the entries read last, if any were read. A failure is logged."""
        if not self._changed:
            return
        try:
            write_json(self._path, dict([*self._entries.items()][-MAX_ENTRIES:]))
        except UserError as problem:
            log.warning("%s", problem)
        self._changed, self._saved = False, monotonic()
