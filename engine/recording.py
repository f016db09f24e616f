"""The files that a session records to."""

import logging
from pathlib import Path

from .errors import reason
from .trace.log import SUFFIX, TraceWriter
from .trace.records import Event, Header

log = logging.getLogger(__name__)


class Recording:
    """Writes each trace of a session to its own file: the one named, then NAME-2, NAME-3, …

    `path` is the newest file, `None` if there is none. Once writing fails, `error` says why and
    events go nowhere until the next trace begins.
    """

    def __init__(self, named: Path | None) -> None:
        self._named = named
        self._writer: TraceWriter | None = None
        self.path: Path | None = None
        self.error: str | None = None

    def begin(self, header: Header) -> None:
        self.close()
        if self._named is None:
            return
        path = _free_name(self._named)
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

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _give_up(self, path: Path, error: OSError) -> None:
        log.error("recording to %s", path, exc_info=error)
        self.error = f"not recorded: cannot write {path} ({reason(error)})"
        self.close()


def _free_name(named: Path) -> Path:
    stem = named.name.removesuffix(SUFFIX)
    suffix = named.name[len(stem) :]
    path, number = named, 1
    while path.exists():
        number += 1
        path = named.with_name(f"{stem}-{number}{suffix}")
    return path
