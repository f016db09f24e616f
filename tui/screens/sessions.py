"""Screen that lists the recorded sessions, to replay, resume or delete one."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rich.filesize import decimal
from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.message import Message
from textual.worker import get_current_worker

from ...engine.errors import UserError
from ...engine.trace.file import read_trace
from ...engine.trace.printable import visible
from ...engine.trace.trace import Trace
from ..throttle import Throttle
from ..user.outline_cache import OutlineCache
from ..user.recorded_sessions import (
    RecordedSession,
    RecordedTrace,
    delete_traces,
    list_sessions,
    read_outlines,
)
from ..widgets.key_line import KeyLine
from ..widgets.session_list import SessionDetails, SessionList, SessionRow
from .ask import ConfirmDialog
from .inspector import Inspector
from .list_screen import LEAVE, MOVES, ListScreen
from .listed_replay import ListedReplay
from .live import LiveInspector
from .session_keys import QUIT, SESSION_KEYS

FRAMES = 10
"""Frames a second, at most, while outlines are read."""


class ResumeRequested(Message):
    """The program shall go on with a recorded session, in place of all that is open."""

    def __init__(self, trace: Path) -> None:
        super().__init__()
        self.trace = trace


class SessionsScreen(ListScreen):
    """List of the sessions in a directory, on top of an inspector or by itself."""

    BINDINGS: ClassVar[list[BindingType]] = [*SESSION_KEYS, *MOVES, LEAVE, QUIT]
    commands = SESSION_KEYS
    FILTER_HINT = "model, prompt, lanes or date"

    class Listed(Message):
        def __init__(self, sessions: list[RecordedSession], problem: str) -> None:
            super().__init__()
            self.sessions = sessions
            self.problem = problem

    class OutlineRead(Message):
        def __init__(self, trace: RecordedTrace) -> None:
            super().__init__()
            self.trace = trace

    class TraceRead(Message):
        """A trace is read, to be replayed or resumed, or cannot be."""

        def __init__(self, result: Trace | UserError, path: Path, *, to_resume: bool) -> None:
            super().__init__()
            self.result = result
            self.path = path
            self.to_resume = to_resume

    def __init__(self, directory: Path, below: Inspector | None = None) -> None:
        """`below` is the inspector that the list covers."""
        super().__init__()
        self._directory = directory
        self._below = below
        self._live = below if isinstance(below, LiveInspector) else None
        self._sessions: list[RecordedSession] | None = None
        """None until they are listed."""
        self._problem = ""
        self._index_of: dict[Path, int] = {}
        """Index of each trace's session."""
        self.rows: list[SessionRow] = []
        self._matching = 0
        """Number of sessions that match the filter."""
        self._unfolded: set[str] = set()
        self._activity = ""
        self._frame = Throttle(self, FRAMES, self.list_rows)

    def compose(self) -> ComposeResult:
        yield from super().compose()
        yield SessionList(id="sessions-list")
        yield SessionDetails(id="sessions-details")
        yield KeyLine([*SESSION_KEYS, LEAVE if self._below else QUIT])

    @property
    def leaves_by_escape(self) -> bool:
        return self._below is not None

    # -- what is listed -----------------------------------------------------------------------

    def on_screen_resume(self) -> None:
        """List the files again: a session may have ended, and another begun."""
        self._list()

    @work(thread=True, exclusive=True, group="list")
    def _list(self) -> None:
        worker = get_current_worker()
        outlines = OutlineCache()
        recording = self._live.recording_path if self._live else None
        try:
            sessions = list_sessions(
                self._directory, recording, outlines, lambda: worker.is_cancelled
            )
        except UserError as error:
            self.post_message(self.Listed([], str(error)))
            return
        if worker.is_cancelled:
            return
        self.post_message(self.Listed(sessions, ""))
        read_outlines(
            sessions,
            outlines,
            lambda trace: self.post_message(self.OutlineRead(trace)),
            lambda: worker.is_cancelled,
        )

    @on(Listed)
    def _take_sessions(self, event: Listed) -> None:
        self._sessions, self._problem = event.sessions, event.problem
        self._index_of = {
            trace.path: index
            for index, session in enumerate(event.sessions)
            for trace in session.traces
        }
        self.list_rows()

    @on(OutlineRead)
    def _take_outline(self, event: OutlineRead) -> None:
        index = self._index_of.get(event.trace.path)
        if index is not None and self._sessions is not None:
            self._sessions[index] = self._sessions[index].with_trace(event.trace)
            self._frame.request()

    def list_rows(self) -> None:
        sessions, words = self._sessions or [], self.filter_words
        matching = [found for session in sessions if (found := session.matching(words))]
        selected = self.row
        self.rows = []
        for session in matching:
            self.rows.append(SessionRow(session))
            if session.key in self._unfolded and len(session.traces) > 1:
                self.rows += [SessionRow(session, trace) for trace in session.traces]
        keys = [row.key for row in self.rows]
        if selected is not None and selected.key in keys:
            self.selected = keys.index(selected.key)
        self._matching = len(matching)
        self.select(self.selected)
        self.draw()

    def draw(self) -> None:
        count, matching = len(self._sessions or []), self._matching
        unread = sum(
            not trace.is_known for session in self._sessions or [] for trace in session.traces
        )
        note = f"{matching} of {count}" if matching < count else str(count)
        if unread:
            note += f", {unread} being read"
        self.query_one(SessionList).show(
            f"recorded sessions in {self._directory}",
            self._activity or note,
            self.rows,
            self.selected,
            self._empty,
        )
        self.query_one(SessionDetails).show(self.row)

    @property
    def _empty(self) -> str:
        """Sentence in place of rows."""
        if self._problem:
            return f"{self._problem}."
        if self._sessions is None:
            return "Reading …"
        if self._sessions:
            return "No session matches; esc clears the filter."
        return (
            "No session is recorded here. prunetui and prunetui record write one each time, unless "
            "-o names another file, which prunetui replay FILE opens."
        )

    @property
    def row_count(self) -> int:
        return len(self.rows)

    @property
    def row(self) -> SessionRow | None:
        """Selected row."""
        return self.rows[self.selected] if self.selected < len(self.rows) else None

    def action_unfold(self) -> None:
        if self.row is not None:
            self._unfolded.add(self.row.session.key)
            self.list_rows()

    def action_fold(self) -> None:
        if self.row is not None:
            session = self.row.session
            self._unfolded.discard(session.key)
            self.selected = self.rows.index(SessionRow(session))
            self.list_rows()

    def action_leave(self) -> None:
        if not self._below:
            self.app.exit()
        else:
            self.dismiss()

    # -- what is done with a session ----------------------------------------------------------

    def open_row(self) -> None:
        self.action_replay()

    def action_replay(self) -> None:
        if self.row is not None:
            self._read(_readable(self.row), to_resume=False)

    def action_resume(self) -> None:
        if self.row is None:
            return
        recording = self._live.recording_path if self._live else None
        if recording is not None and recording.resolve() == self.row.trace.path.resolve():
            self.notify("That is the session that is open: esc leads back to it.", markup=False)
            return
        self._read(_readable(self.row), to_resume=True)

    def _read(self, paths: Sequence[Path], *, to_resume: bool) -> None:
        self._activity = f"opening {visible(paths[0].name)} …"
        self.draw()
        self._read_newest(paths, to_resume=to_resume)

    @work(thread=True, exclusive=True, group="read")
    def _read_newest(self, paths: Sequence[Path], *, to_resume: bool) -> None:
        """Read the first of the traces that has steps; if none has, the first of all."""
        worker = get_current_worker()
        result, path = None, paths[0]
        try:
            for path in paths:
                trace = read_trace(path)
                if trace.steps or result is None:
                    result = self.TraceRead(trace, path, to_resume=to_resume)
                if trace.steps:
                    break
        except UserError as error:
            result = self.TraceRead(error, path, to_resume=to_resume)
        if result is not None and not worker.is_cancelled:
            self.post_message(result)

    @on(TraceRead)
    def _take_trace(self, event: TraceRead) -> None:
        self._activity = ""
        self.draw()
        if not self.is_current:
            return
        if isinstance(event.result, UserError):
            self._refuse(f"{event.result}.")
        elif event.to_resume:
            self._resume(event.result, event.path)
        else:
            # As for a replay from the command line; it is freed nevertheless when it is closed.
            gc.freeze()
            self.app.push_screen(ListedReplay(event.result, event.path))

    def _resume(self, trace: Trace, path: Path) -> None:
        if trace.header.options is None:
            self._refuse(f"{path.name} does not say how it was made; it cannot be resumed.")
            return

        def resume(yes: bool | None) -> None:
            if yes:
                self.post_message(ResumeRequested(path))

        if end := self._live.end_if_left if self._live else "":
            text = f"{end} Then {trace.header.model.name} is loaded."
            self.app.push_screen(ConfirmDialog(f"Resume {path.name}?", text, "Resume"), resume)
        else:
            resume(True)

    def action_delete(self) -> None:
        if self.row is None:
            return
        traces = self.row.traces

        def delete(yes: bool | None) -> None:
            if not yes:
                return
            try:
                delete_traces(traces)
            except UserError as error:
                self._refuse(f"{error}.")
            self._list()

        size = decimal(sum(trace.bytes + trace.vector_bytes for trace in traces))
        what = traces[0].name if len(traces) == 1 else f"the {len(traces)} traces of this session"
        vectors = ", vectors included" if any(trace.vector_bytes for trace in traces) else ""
        names = ", ".join(trace.path.name for trace in traces)
        title = f"Delete {what}, {size}{vectors}?"
        self.app.push_screen(ConfirmDialog(title, names, "Delete"), delete)

    def _refuse(self, sentence: str) -> None:
        self.notify(visible(sentence), severity="warning", markup=False)


def _readable(row: SessionRow) -> list[Path]:
    """Paths of the row's trace and, for a session, of those before it that may have steps."""
    shown = row.trace
    if row.own_trace or (shown.outline and shown.outline.steps):
        return [shown.path]
    older = row.traces[row.traces.index(shown) + 1 :]
    return [shown.path, *(trace.path for trace in older if not trace.problem)]
