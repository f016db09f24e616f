"""Main screen on a session that decodes."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Unpack

from textual import on, work
from textual.app import ComposeResult

from ...engine.errors import UserError
from ...engine.options import Context, Options
from ...engine.session.changes import RestartChanges, changed_options
from ...engine.trace.analysis.breakpoints import parse_breakpoint
from ...engine.trace.divergence import differs
from ...engine.trace.file import SUFFIX
from ...engine.trace.printable import visible
from ...engine.trace.records import Header, Sampling, Step
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
from .ask import AskDialog
from .choose import ForceDialog
from .inspector import Inspector
from .prompt import Decoding, PromptEditor
from .variants import VariantEditor

NEXT_CONTEXT: dict[Context, Context] = {"free": "forced", "forced": "both", "both": "free"}

CLOSE_SECONDS = 1.5
"""Seconds that quitting waits for a step to end and the trace file to be closed."""

WORK_FRAMES = 4
"""Times a second that the screen looks how far long work has come."""

STALE_SECONDS = 0.3
"""Seconds of work on another trace after which the one shown is greyed."""


class LiveInspector(Inspector):
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
        self._editor: VariantEditor | None = None
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
        if self._editor is not None and self._editor.applying:
            self._editor.dismiss()

    def _show_work(self) -> None:
        """Draw how far the work is that is being done, and grey what it is to replace."""
        thread = self._thread
        stage = thread.activity
        late = stage is not None and thread.replacing_for > STALE_SECONDS
        self.set_class(late, "stale")
        if self._editor is not None:
            self._editor.show_state(thread.importance, thread.importance_error, self._work)
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
        elif self._editor is not None and self._editor.applying:
            self._editor.show_refusal(event.sentence)
        else:
            self._show_error(event.sentence)

    @on(WorkCancelled)
    def _tell_cancelled(self) -> None:
        if self._editor is not None:
            self._editor.show_cancelled()
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

    # -- keys ---------------------------------------------------------------------------------

    def go_on(self) -> None:
        if not self._thread.playing:
            self._decode(self._thread.step)

    def action_play(self) -> None:
        if self._thread.playing:
            self._thread.pause()
        else:
            super().action_play()

    def play_on(self) -> None:
        self._decode(lambda: self._thread.play(self._stop_at_breakpoint))

    def _stop_at_breakpoint(self, steps: Sequence[Step]) -> str:
        stop = self.seeking.breakpoint
        return stop.hit(steps) if stop else ""

    def run_to_divergence(self) -> None:
        lanes = self.compared_lanes()

        def stop(steps: Sequence[Step]) -> str:
            if any(differs(steps[-1], lane) for lane in lanes):
                return f"step {steps[-1].step} differs"
            return self._stop_at_breakpoint(steps)

        session = self._thread.session
        if session is not None and session.finished:
            self.tell(f"{self.no_divergence}, and nothing is left to decode: {session.finished}.")
            return
        self.follow()
        self._decode(lambda: self._thread.play(stop))

    @work
    async def action_force(self, token: int | None = None) -> None:
        if (trace := self.trace) is None:
            return
        moment = self.moment_of(trace)
        step = moment.step_or_preview
        if step is None:
            return
        branch_with = partial(trace.branch_with, step.step)
        forced = await self.app.push_screen_wait(ForceDialog(moment, step, token, branch_with))
        if forced is None:
            return
        self.alert = ""
        self.follow()
        if forced.branch is None:
            self._thread.force(step.step, forced.tokens)
        else:
            self.tell(f"Branch {forced.branch + 1} has that token at step {step.step} already.")
            self._cursor = step.step
            self._thread.switch(forced.branch)

    can_read = True

    def read_step(self, number: int) -> None:
        if self._thread.playing:
            # The newest step would be another before this one is read.
            self._cursor = number
        self._thread.read(number)

    def switch(self, branch: int) -> None:
        self._thread.switch(branch)

    def action_restart(self) -> None:
        if self._thread.session is not None:
            self._restart()
        elif self.query_one(LoadingPanel).problem:
            self._open_again()

    def action_toggle_context(self) -> None:
        if self.trace is not None:
            self._restart(context=NEXT_CONTEXT[self.trace.header.context])

    @work
    async def action_prompt(self) -> None:
        if self.trace is None and not (
            self.edits_unopened and self.query_one(LoadingPanel).problem
        ):
            return
        edited = await self.app.push_screen_wait(PromptEditor(self._decoding))
        if edited is None:
            return
        changes = RestartChanges(prompt=edited.prompt, sampling=edited.sampling, raw=edited.raw)
        if self._thread.session is not None:
            self._restart(**changes)
            return
        options = self._options
        self._options = changed_options(options, changes, templated=not options.raw)
        self._open_again()

    @property
    def _decoding(self) -> Decoding:
        """Prompt and sampling of the session as asked for last, or of the options if none has
        opened."""
        if self.trace is not None:
            header, asked = self.trace.header, self._unapplied
            return Decoding(
                asked.get("prompt", header.prompt.text),
                asked.get("raw", not header.prompt.chat_template),
                asked.get("sampling", header.sampling),
            )
        options = self._options
        fields = {name: getattr(options, name) for name in Sampling.__struct_fields__}
        return Decoding(options.prompt, options.raw, Sampling(**fields))

    @work
    async def action_variants(self) -> None:
        if self.trace is None:
            return
        try:
            editor = VariantEditor(
                self.trace.header, self.lane, self._thread.set_variants, self._cancel_work
            )
        except UserError as error:
            self._show_error(str(error))
            return
        self.alert = ""
        self.stop_playing()
        self._thread.measure_importance()
        self._editor = editor
        await self.app.push_screen_wait(editor)
        self._editor = None

    @work
    async def action_answers(self) -> None:
        if self.trace is None:
            return
        answers_now = self.trace.header.answers
        texts = self._unapplied.get("answers", answers_now.texts if answers_now else ())
        answers = await self.app.push_screen_wait(
            AskDialog(
                "Answers",
                "Texts of one token each, separated by commas; spaces count. "
                "Decoding begins again from the prompt.",
                lambda text: tuple(text.split(",")),
                ",".join(texts),
            )
        )
        if answers is not None:
            self._restart(answers=answers)

    def _restart(self, **changes: Unpack[RestartChanges]) -> None:
        self.alert = ""
        self.follow()
        self._unapplied |= changes
        self._thread.restart(**changes)

    def _decode(self, command: Callable[[], None]) -> None:
        session = self._thread.session
        if session is None or self.trace is None:
            return
        self.alert = ""
        if session.finished:
            self.notify(visible(f"Nothing is left to decode: {session.finished}."), markup=False)
        else:
            command()

    @property
    def export_name(self) -> str:
        session = self._thread.session
        if session is None or session.recording is None:
            return "prunetui"
        return session.recording.name.removesuffix(SUFFIX)
