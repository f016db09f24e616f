"""The recorded sessions of a directory: what each was, and the traces that it wrote."""

import datetime
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import platformdirs

from ...engine.errors import UserError, reason
from ...engine.output_files import check_writable
from ...engine.trace.file import SUFFIX, is_being_written, read_header
from ...engine.trace.outline import Outline
from ...engine.trace.records import Header
from ...engine.trace.vector_file import SPACES, vectors_path
from .outline_cache import OutlineCache

_NUMBERED = re.compile(r"(?P<first>\d{8}-\d{6}-\d+|.+?)(?:-(?P<number>[2-9]|[1-9]\d+))?")
"""Names that a session gives its traces: NAME, NAME-2, …; a NAME of ours ends in a number too."""


def sessions_directory() -> Path:
    """Directory of the traces that no `-o` names."""
    return platformdirs.user_state_path("prunetui")


def new_trace_path() -> Path:
    """Path of a new trace in that directory, named after the time and the process.

    Raises `UserError` if none can be written there.
    """
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path = sessions_directory() / f"{now}-{os.getpid()}{SUFFIX}"
    check_writable(path, private=True)
    return path


@dataclass(frozen=True)
class TraceFacts:
    """What the list shows of a trace's header."""

    session: tuple[str, ...]
    """Equal in the traces of one session."""
    model: str
    prompt: str
    lanes: list[str]
    resumable: bool


@dataclass(frozen=True)
class RecordedTrace:
    """Trace file, and what is known of it so far."""

    path: Path
    bytes: int
    modified: int
    """Time of the last change in nanoseconds."""
    vector_bytes: int
    """Size of the vector files beside it."""
    began: datetime.datetime
    """Local time of the header; of the last change if it has none."""
    being_written: bool
    facts: TraceFacts | None
    """None if the header cannot be read."""
    outline: Outline | None
    """None until it is read, and if there is a `problem`."""
    problem: str
    """Sentence on what is wrong with the file; empty if nothing is known to be."""

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(SUFFIX)

    @property
    def is_known(self) -> bool:
        """Whether nothing is left to be read for the list."""
        return self.outline is not None or self.problem != ""

    @cached_property
    def search_text(self) -> str:
        """Model, prompt, lanes, date and name, case folded."""
        facts = self.facts
        texts = [f"{self.began:%Y-%m-%d %H:%M}", self.name]
        if facts is not None:
            texts += [facts.model, facts.prompt, *facts.lanes]
        return "\n".join(texts).casefold()


@dataclass(frozen=True)
class RecordedSession:
    """Traces that one session wrote."""

    key: str
    """Name of its first trace, which stays while it writes others."""
    traces: tuple[RecordedTrace, ...]
    """The newest first."""

    @property
    def shown(self) -> RecordedTrace:
        """Trace that stands for the session: the newest that has steps, or may have."""
        return next(
            (
                trace
                for trace in self.traces
                if not trace.problem and (trace.outline is None or trace.outline.steps)
            ),
            self.traces[0],
        )

    def with_trace(self, new: RecordedTrace) -> "RecordedSession":
        """Session with what has become known of one of its traces."""
        traces = tuple(new if trace.path == new.path else trace for trace in self.traces)
        return replace(self, traces=traces)

    def matching(self, words: Sequence[str]) -> "RecordedSession | None":
        """Session with those of its traces whose text has each of the words; None without any."""
        traces = tuple(
            trace for trace in self.traces if all(word in trace.search_text for word in words)
        )
        return replace(self, traces=traces) if traces else None


def list_sessions(
    directory: Path,
    recording: Path | None,
    outlines: OutlineCache,
    cancelled: Callable[[], bool],
) -> list[RecordedSession]:
    """List the sessions of a directory, the newest first; of files, the first line is read.

    `recording` is a trace known to be written. An absent directory has no sessions. Raises
    `UserError` if it cannot be read.
    """
    try:
        with os.scandir(directory) as entries:
            names = {entry.name for entry in entries}
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot read {directory}: {reason(error)}") from error
    sessions: dict[tuple[str, ...], list[RecordedTrace]] = {}
    for name in names:
        if cancelled():
            return []
        if name.endswith(SUFFIX):
            trace = _recorded_trace(directory / name, names, outlines)
            if recording is not None and trace.path.resolve() == recording.resolve():
                trace = replace(trace, being_written=True)
            key = trace.facts.session if trace.facts else ("", name)
            sessions.setdefault(key, []).append(trace)
    grouped = []
    for traces in sessions.values():
        traces.sort(key=_order, reverse=True)
        grouped.append(RecordedSession(traces[-1].name, tuple(traces)))
    return sorted(grouped, key=lambda session: _order(session.traces[0]), reverse=True)


def read_outlines(
    sessions: Iterable[RecordedSession],
    outlines: OutlineCache,
    found: Callable[[RecordedTrace], object],
    cancelled: Callable[[], bool],
) -> None:
    """Read the outlines that are not known, the newest first, and give each trace to `found`."""
    try:
        for session in sessions:
            for trace in session.traces:
                if cancelled():
                    return
                if not trace.is_known:
                    outline, problem = outlines.read(
                        trace.path, trace.bytes, trace.modified, cancelled
                    )
                    if outline is not None or problem:
                        found(replace(trace, outline=outline, problem=problem))
    finally:
        outlines.save()


def delete_traces(traces: Iterable[RecordedTrace]) -> None:
    """Delete traces with the vectors beside them.

    Raises `UserError`, and deletes none, if one is being written; and if a file cannot be deleted.
    """
    traces = list(traces)
    for trace in traces:
        if trace.being_written or is_being_written(trace.path):
            raise UserError(
                f"{trace.name} is being recorded; it can be deleted when that has ended"
            )
    for trace in traces:
        # The trace last: without it nothing would name the others.
        for path in (*(vectors_path(trace.path, space) for space in SPACES), trace.path):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise UserError(f"cannot delete {path}: {reason(error)}") from error


def _recorded_trace(path: Path, names: set[str], outlines: OutlineCache) -> RecordedTrace:
    header, problem, size, modified, vectors = None, "", 0, 0, 0
    being_written = False
    try:
        status = path.stat()
        size, modified = status.st_size, status.st_mtime_ns
        for space in SPACES:
            file = vectors_path(path, space)
            vectors += file.stat().st_size if file.name in names else 0
        # A pipe would block.
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is no file")
        header = read_header(path)
        being_written = is_being_written(path)
    except UserError as error:
        problem = str(error)
    except OSError as error:
        problem = f"cannot read {path}: {reason(error)}"
    outline = None
    if not problem:
        outline, problem = outlines.known(path, size, modified)
    return RecordedTrace(
        path=path,
        bytes=size,
        modified=modified,
        vector_bytes=vectors,
        began=_began(header, modified),
        being_written=being_written,
        facts=_facts(path, header) if header else None,
        outline=outline,
        problem=problem,
    )


def _facts(path: Path, header: Header) -> TraceFacts:
    if header.session is not None:
        session = (header.session,)
    else:
        # Old traces do not name their session. It measured the bandwidth once.
        match = _NUMBERED.fullmatch(path.name.removesuffix(SUFFIX))
        name = match["first"] if match else path.name
        session = (name, header.model.name, str(header.bandwidth))
    return TraceFacts(
        session=session,
        model=header.model.name,
        prompt=header.prompt.text,
        lanes=[lane.name for lane in header.lanes],
        resumable=header.options is not None,
    )


def _began(header: Header | None, modified: int) -> datetime.datetime:
    if header is not None:
        try:
            began = datetime.datetime.fromisoformat(header.created)
            if began.tzinfo is None:
                began = began.replace(tzinfo=datetime.UTC)
            return began.astimezone()
        except (ValueError, OverflowError, OSError):
            pass
    try:
        return datetime.datetime.fromtimestamp(modified / 1e9).astimezone()
    except (ValueError, OverflowError, OSError):
        return datetime.datetime.fromtimestamp(0).astimezone()


def _order(trace: RecordedTrace) -> tuple[datetime.datetime, int, str]:
    """Sorting key in order of time; several traces may begin in one second."""
    match = _NUMBERED.fullmatch(trace.name)
    number = int(match["number"] or 1) if match else 1
    return trace.began, number, trace.name
