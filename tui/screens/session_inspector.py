"""What the main screen shows of a session in its own thread, and of the work it does."""

from pathlib import Path
from typing import Protocol

from textual import on
from textual.app import ComposeResult

from ...engine.errors import UserError
from ...engine.options import Options
from ...engine.session.changes import RestartChanges
from ...engine.trace.analysis.breakpoints import parse_breakpoint
from ...engine.trace.file import SUFFIX
from ...engine.trace.printable import visible
from ...engine.trace.records import Header
from ...engine.trace.trace import Trace
from ..session_port import OpenSession
from ..session_thread import (
    PlaybackStopped,
    SessionChanged,
    SessionFailed,
    SessionThread,
    WorkCancelled,
)
from ..user.connection import connection_note
from ..widgets.key_line import key_for
from ..widgets.loading import LoadingPanel
from .inspector import Inspector

CLOSE_SECONDS = 1.5
"""Seconds that quitting waits for a step to end and the trace file to be closed."""

WORK_FRAMES = 4
"""Times a second that the screen looks how far long work has come."""

STALE_SECONDS = 0.3
"""Seconds of work on another trace after which the one shown is greyed."""


class WorkScreen(Protocol):
    """Screen on top of the inspector that asks its session for work and shows what comes of it."""

    @property
    def waiting(self) -> bool:
        """Whether what it asked for is neither there nor refused."""
        ...

    def show_work(self, thread: SessionThread, work: str) -> None:
        """Show what the thread has, and how far what it does is; `work` is empty if that is
        nothing that takes long."""

    def show_refusal(self, sentence: str) -> None:
        """Show why what it asked for is not done."""

    def show_cancelled(self) -> None:
        """Show that what was being done has been cancelled."""

    def leave_trace(self) -> None:
        """Take leave of the trace that it was opened on: the session has another."""


class SessionInspector(Inspector):
    """Inspector of a session in its own thread; it shows loading until there is a trace."""

    edits_unopened = True
    """Whether the prompt can be edited where the session could not be opened with it."""

    def __init__(self, options: Options, record_to: Path | None, open_session: OpenSession) -> None:
        super().__init__()
        self._options = options
        self._record_to = record_to
        self._open_session = open_session
        self._thread = self._new_thread()
        self._shown_error = ""
        self._left_out: list[str] = []
        self._upper: WorkScreen | None = None
        """Screen on top of this one that shows what it asks the session for."""
        self._unapplied: RestartChanges = {}
        """What was asked of the session and has given no other trace: the editors begin with it."""

    def compose(self) -> ComposeResult:
        note = connection_note(self._record_to)
        yield LoadingPanel(self._options.model, lambda: self._thread.stages, note)
        yield from super().compose()

    def on_mount(self) -> None:
        self.add_class("loading")
        self._ticks = self.set_interval(1 / WORK_FRAMES, self._show_work, pause=True)
        self.call_after_refresh(self._thread.start)

    def on_unmount(self) -> None:
        self._thread.close(CLOSE_SECONDS)

    def _new_thread(self) -> SessionThread:
        return SessionThread(self.post_message, self._open_session, self._options, self._record_to)

    def _open_again(self) -> None:
        """Open the session in a new thread, after a failure to open."""
        self._thread = self._new_thread()
        self.query_one(LoadingPanel).begin_again()
        self._thread.start()

    # -- what the thread says -----------------------------------------------------------------

    @on(SessionChanged)
    def _show(self) -> None:
        self._thread.change_pending = False
        session = self._thread.session
        if session is None or not self.is_wanted(session.trace):
            return
        self.remove_class("loading")
        if session.left_out is not self._left_out:
            self._left_out = session.left_out
            for sentence in session.left_out:
                self.notify(visible(sentence), severity="warning", markup=False)
        if session.trace is not self.trace:
            self.take_trace(session.trace)
        if session.recording_error and session.recording_error != self._shown_error:
            self._shown_error = session.recording_error
            self._show_error(self._shown_error)
        if self._thread.activity is None:
            self._ticks.pause()
        else:
            self._ticks.resume()
        self._show_work()

    def is_wanted(self, trace: Trace) -> bool:  # noqa: ARG002
        """Whether a trace is the one to show; else another is to come, and loading is shown."""
        return True

    def take_trace(self, trace: Trace) -> None:
        """Show another trace than the one before."""
        self.trace = trace
        self._unapplied = {}
        self.follow()
        self._fit_to_lanes(trace.header)
        if self._upper is not None:
            self._upper.leave_trace()

    def _show_work(self) -> None:
        """Draw how far the work is that is being done, and grey what it is to replace."""
        thread = self._thread
        stage = thread.activity
        late = stage is not None and thread.replacing_for > STALE_SECONDS
        self.set_class(late, "stale")
        if self._upper is not None:
            self._upper.show_work(thread, self._work)
        self.draw()

    def _fit_to_lanes(self, header: Header) -> None:
        """Fit the selected lane and the breakpoint to lanes that may be others, and fewer."""
        self.lane = min(self.lane, len(header.lanes) - 1)
        if (stop := self.seeking.breakpoint) is not None:
            try:
                self.seeking.breakpoint = parse_breakpoint(stop.text, header)
            except UserError as error:
                self.seeking.breakpoint = None
                self.notify(visible(f"No breakpoint any more: {error}."), markup=False)

    @on(PlaybackStopped)
    def _stopped(self, event: PlaybackStopped) -> None:
        self.tell_stopped(event.reason)

    @on(SessionFailed)
    def _fail(self, event: SessionFailed) -> None:
        if self.trace is None:
            self.query_one(LoadingPanel).fail(event.error)
        elif self._upper is not None and self._upper.waiting:
            self._upper.show_refusal(event.sentence)
        else:
            self._show_error(event.sentence)

    @on(WorkCancelled)
    def _tell_cancelled(self) -> None:
        if self._upper is not None:
            self._upper.show_cancelled()
        elif self.trace is not None:
            edits = f" {key_for(self, 'prompt')} has your edits." if self._unapplied else ""
            self.notify(f"Cancelled: all is as it was.{edits}", markup=False)
        self.draw()

    def _show_error(self, sentence: str) -> None:
        self.alert = sentence
        self.notify(visible(sentence), severity="error", markup=False)
        self.draw()

    # -- the status line ----------------------------------------------------------------------

    @property
    def state(self) -> str:
        session = self._thread.session
        if work := self._work:
            return f"… {work}"
        if self._thread.playing:
            return "▶ decoding"
        if self.playing_recorded:
            return "▶ recorded"
        return "■ finished" if session and session.finished else "‖ paused"

    @property
    def _work(self) -> str:
        """What is being done that takes long, how far it is and what cancels it."""
        stage = self._thread.activity
        if stage is None:
            return ""
        ending = "cancelling" if self._thread.cancelling else f"{key_for(self, 'leave')} cancels"
        return f"{stage.line} · {ending}"

    def _cancel_work(self) -> None:
        self._thread.cancel()
        self._show_work()

    def action_leave(self) -> None:
        if self._thread.activity is None:
            super().action_leave()
        else:
            self._cancel_work()

    @property
    def recording(self) -> str:
        session = self._thread.session
        if session is None or session.recording is None:
            return "not recorded"
        if session.recording_error:
            return "recording stopped"
        return f"● {session.recording.name.removesuffix(SUFFIX)}"

    @property
    def recording_path(self) -> Path | None:
        """File that the session is being recorded to."""
        session = self._thread.session
        return session.recording if session and not session.recording_error else None

    @property
    def end_if_left(self) -> str:
        """Sentence on what becomes of the session without this screen; empty if none is open."""
        if self._thread.session is None:
            return ""
        if self.recording_path is None:
            return "The session that is open ends, and it is not recorded."
        return f"The session that is open ends; it is recorded as {self.recording_path.name}."

    @property
    def export_name(self) -> str:
        session = self._thread.session
        if session is None or session.recording is None:
            return "prunetui"
        return session.recording.name.removesuffix(SUFFIX)
