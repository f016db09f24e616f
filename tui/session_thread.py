"""The thread that owns the session: commands in through a queue, messages out."""

import logging
import os
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Unpack

from textual.message import Message

from ..engine.errors import UserError
from ..engine.options import Options
from ..engine.out_of_memory import guard_memory_by_stage, release_failed_attempt
from ..engine.progress import IMPORTING, Cancelled, Progress
from ..engine.results.records import Header
from ..engine.session.changes import RestartChanges
from ..engine.trace.blame import BlamedTokens, Causes
from ..engine.trace.records import Step
from ..engine.trace.trace import Trace
from .session_port import OpenSession, SessionPort
from .user.log_file import log_file

if TYPE_CHECKING:
    from ..engine.variants.pruning.ranking import Similarity

log = logging.getLogger("prunetui")

NICENESS = 5
"""Added to the niceness of the thread and of torch's threads where a CPU decodes: with few cores,
keys are answered sooner. A GPU would wait for a thread that comes last."""


def open_engine_session(
    options: Options,
    record_to: Path | None,
    progress: Progress,
    resume: Trace | None = None,
    evaluation: Header | None = None,
) -> SessionPort:
    """Load a model and prompt into a `Session`, or open one that continues a trace, or one of an
    evaluation's items, whose model is to be the evaluation's."""
    with guard_memory_by_stage(progress) as report:
        report(IMPORTING, None)
        # The window must not wait for torch.
        from ..engine.model.device import find_device
        from ..engine.session.session import open_session

        # Before torch starts its threads, which inherit the niceness; it can only grow.
        if find_device(options.device).type == "cpu":
            _be_nice()
        return open_session(options, record_to, report, resume, evaluation)


def _be_nice() -> None:
    """Let other threads go before this one and those that it starts."""
    if sys.platform == "linux":  # elsewhere it would be the whole process's
        thread = threading.get_native_id()
        niceness = os.getpriority(os.PRIO_PROCESS, thread) + NICENESS
        os.setpriority(os.PRIO_PROCESS, thread, niceness)


@dataclass
class Stage:
    """Part of loading or of other long work, with `time.monotonic()` when it began and ended."""

    text: str
    began: float
    fraction: float | None = None
    ended: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds that it has taken so far, or took."""
        return (self.ended or monotonic()) - self.began

    @property
    def line(self) -> str:
        """What is done, how much of it and for how long: `reading the prompt 45% · 12 s`."""
        share = "" if self.fraction is None else f" {self.fraction:.0%}"
        return f"{self.text}{share}" + (f" · {self.seconds:.0f} s" if self.seconds >= 1 else "")


class SessionChanged(Message):
    """The trace has changed, or what the thread is doing."""


class SessionFailed(Message):
    """A command has failed, or opening the session; the error's sentence says why."""

    def __init__(self, error: UserError) -> None:
        super().__init__()
        self.error = error
        self.sentence = str(error)


class WorkCancelled(Message):
    """What was cancelled has not been done: all is as it was before."""


class PlaybackStopped(Message):
    """A stop condition has ended playing; the reason is a clause."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


Command = Callable[[SessionPort], object]

READING = "reading the prompt"

StopCondition = Callable[[Sequence[Step]], str]
"""Maps the steps so far to the reason why playing stops after the last; empty to go on."""


def _never(_steps: Sequence[Step]) -> str:
    return ""


class SessionThread:
    """Opens a session and drives it; all methods but `close` return at once.

    The public attributes are written by the thread and read by the screen after a
    `SessionChanged`; the screen writes `change_pending` too.
    """

    def __init__(
        self,
        post: Callable[[Message], object],
        open_session: OpenSession,
        options: Options,
        record_to: Path | None,
    ) -> None:
        self.session: SessionPort | None = None
        self.stages: list[Stage] = []
        self.playing = False
        self.activity: Stage | None = None
        """Work that is not a step, such as reading a prompt."""
        self._replacing_since: float | None = None
        """When work began that is to give another trace."""
        self.importance: Similarity | None = None
        """Similarities of the baseline's sublayers, after `measure_importance`."""
        self.importance_error = ""
        """Why they could not be measured."""
        self.change_pending = False
        """Whether a `SessionChanged` is posted that the screen has not seen. The screen clears this
        and then reads; no other is posted until then, so that keys do not wait for thousands."""
        self._post = post
        self._open = open_session
        self._options = options
        self._record_to = record_to
        self._commands: queue.SimpleQueue[tuple[int, Command]] = queue.SimpleQueue()
        """Commands, each with the number of times that the user had cancelled before it."""
        self._cancels = 0
        """Number of times that the user has cancelled: earlier commands are not done."""
        self._told_cancels = 0
        """Number of them that the screen was told of."""
        self._running = 0
        """Number that the running command has."""
        self._stop_condition: StopCondition = _never
        self._closing = threading.Event()
        # A daemon: a load that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name="session", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def play(self, stop_condition: StopCondition) -> None:
        """Step until nothing is left, `pause`, or a step at which the condition gives a reason."""
        self._put(lambda _: self._set_playing(True, stop_condition))

    def pause(self) -> None:
        self._put(lambda _: self._set_playing(False))

    def cancel(self) -> None:
        """Cancel the work that is being done and the commands that wait for it."""
        self._cancels += 1

    @property
    def replacing_for(self) -> float:
        """Seconds that work on another trace has taken, 0 if there is none."""
        began = self._replacing_since
        return monotonic() - began if began is not None else 0.0

    @property
    def cancelling(self) -> bool:
        """Whether the work that is being done is to end without effect, and has not yet."""
        return self._running < self._cancels

    def step(self) -> None:
        self._put(self._step)

    def restart(self, **changes: Unpack[RestartChanges]) -> None:
        self._put(lambda session: self._replace(READING, lambda: session.restart(**changes)))

    def force(self, at: int, tokens: dict[int, int]) -> None:
        self._put_paused(lambda session: session.force(at, tokens))

    def read(self, step: int) -> None:
        """Read a step through the logit lens, unless a restart has taken it back."""
        self._put(lambda session: self._read(session, step))

    def blame(self, step: int, lane: int, tokens: BlamedTokens, what: Causes) -> None:
        """Blame a lane's token at a step, unless a restart has taken it back."""
        self._put(lambda session: self._blame(session, step, lane, tokens, what))

    def switch(self, branch: int) -> None:
        self._put_paused(lambda session: session.switch(branch))

    def measure_importance(self) -> None:
        """Measure the importance of the baseline's sublayers, once."""
        self._put(self._measure_importance)

    def set_variants(self, recipes: Sequence[str]) -> None:
        # The lane whose divergence playing was to stop at may not exist any more.
        self._put_paused(
            lambda session: self._replace("applying", lambda: session.set_variants(recipes))
        )

    def close(self, timeout: float) -> None:
        """Close the session at the next step boundary; wait at most `timeout` seconds."""
        self._closing.set()
        self._put(lambda _: None)
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _put(self, command: Command) -> None:
        self._commands.put((self._cancels, command))

    def _put_paused(self, command: Command) -> None:
        def pause_and_run(session: SessionPort) -> None:
            self.playing = False
            command(session)

        self._put(pause_and_run)

    # -- on the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            session = self._open(self._options, self._record_to, self._report_progress)
        except Cancelled:
            return
        except BaseException as error:
            self._end_stage()
            self._post_failure(error)
            return
        self.session = session
        self._end_stage()
        self._post_change()
        while not self._closing.is_set():
            self._run_command(session)
        try:
            session.end()
        except Exception:
            log.exception("closing the session")

    def _run_command(self, session: SessionPort) -> None:
        try:
            try:
                self._running, command = self._commands.get(block=not self.playing)
            except queue.Empty:
                self._running, command = self._cancels, self._step
            if self.cancelling:
                raise Cancelled
            command(session)
        except Cancelled:
            self.playing = False
            # Once for all commands that are not done.
            if self._told_cancels < self._cancels and not self._closing.is_set():
                self._told_cancels = self._cancels
                self._post(WorkCancelled())
        except Exception as error:
            self.playing = False
            self._post_failure(error)
        self.activity = self._replacing_since = None
        self._post_change()

    def _set_playing(self, playing: bool, stop_condition: StopCondition = _never) -> None:
        self.playing = playing
        self._stop_condition = stop_condition

    def _step(self, session: SessionPort) -> None:
        if session.finished:
            self.playing = False
        else:
            session.step(ahead=self.playing)
            if self.playing and (reason := self._stop_condition(session.trace.steps)):
                self.playing = False
                self._post(PlaybackStopped(reason))
            self.playing = self.playing and not session.finished

    def _read(self, session: SessionPort, step: int) -> None:
        if step < len(session.trace.steps):
            self._begin("reading the layers")
            session.read(step)

    def _blame(
        self, session: SessionPort, step: int, lane: int, tokens: BlamedTokens, what: Causes
    ) -> None:
        if step < len(session.trace.steps):
            self._begin("reading the forms of the lane")
            session.blame(step, lane, tokens, what)

    def _measure_importance(self, session: SessionPort) -> None:
        if self.importance is None and not self.importance_error:
            self._begin("ranking the sublayers")
            try:
                self.importance = session.importance()
            except UserError as error:
                self.importance_error = str(error)

    def _report_progress(self, text: str, fraction: float | None) -> None:
        if self._closing.is_set() or (self.session is not None and self.cancelling):
            raise Cancelled
        if self.session is not None:
            if self.activity is None or self.activity.text != text:
                self._begin(text)
            if self.activity is not None:
                self.activity.fraction = fraction
            return
        if not self.stages or self.stages[-1].text != text:
            self._end_stage()
            self.stages.append(Stage(text, monotonic()))
        self.stages[-1].fraction = fraction

    def _begin(self, text: str) -> None:
        """Begin a stage of work; the screen looks by itself how far it comes."""
        self.activity = Stage(text, monotonic())
        self._post_change()

    def _replace(self, text: str, command: Callable[[], object]) -> None:
        self._replacing_since = monotonic()
        self._begin(text)
        command()

    def _post_change(self) -> None:
        if not self.change_pending:
            self.change_pending = True
            self._post(SessionChanged())

    def _end_stage(self) -> None:
        if self.stages:
            self.stages[-1].ended = monotonic()

    def _post_failure(self, error: BaseException) -> None:
        # The screen keeps the error, and what follows may need the memory: `r` loads again.
        release_failed_attempt(error)
        if isinstance(error, UserError):
            self._post(SessionFailed(error))
        else:
            log.error("the session", exc_info=error)
            sentence = f"something went wrong in prunetui itself; {log_file()} says what"
            self._post(SessionFailed(UserError(sentence)))
