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
from ..engine.out_of_memory import guard_memory_by_stage
from ..engine.progress import IMPORTING, Progress
from ..engine.session.changes import RestartChanges
from ..engine.trace.records import Step
from ..engine.trace.trace import Trace
from .session_port import OpenSession, SessionPort
from .user.log_file import log_file

if TYPE_CHECKING:
    from ..engine.variants.pruning.ranking import Similarity

log = logging.getLogger("prunetui")

NICENESS = 5
"""Added to the thread's, and to that of torch's that it starts: a key is answered sooner where
cores are few."""


def open_engine_session(
    options: Options, record_to: Path | None, progress: Progress, resume: Trace | None = None
) -> SessionPort:
    """Load a model and prompt into a `Session`, or open one that continues a trace."""
    with guard_memory_by_stage(progress) as report:
        report(IMPORTING, None)
        # The window must not wait for torch.
        from ..engine.session.session import open_session

        return open_session(options, record_to, report, resume)


@dataclass
class Stage:
    """A part of loading; times are `monotonic()`."""

    text: str
    began: float
    fraction: float | None = None
    ended: float | None = None


class Moved(Message):
    """The session changed: the trace, or what the worker is doing."""


class Failed(Message):
    """A command failed, or opening the session did; the sentence says why."""

    def __init__(self, sentence: str) -> None:
        super().__init__()
        self.sentence = sentence


class Stopped(Message):
    """Playing stopped at a condition; the text says what is so."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why


Stop = Callable[[Sequence[Step]], str]
"""Says of the steps so far why playing is to stop at the last; empty if it is not."""


def _never(_steps: Sequence[Step]) -> str:
    return ""


class _Closing(BaseException):
    """Ends loading from within; no `except Exception` on the way may swallow it."""


class SessionThread:
    """Opens a session and drives it; all methods return at once but `close`.

    `session`, `stages`, `playing`, `busy` and what was measured are written by the thread and
    read by the screen; a message says that there is something new to read.
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
        self.busy = ""
        """What is done that is not a step, such as reading a prompt."""
        self.importance: Similarity | None = None
        """Once `measure` has found it."""
        self.unmeasured = ""
        """Why it has found none."""
        self.unseen = False
        """A `Moved` is on its way. The screen clears this and then reads; until it has, there is
        no need to post another, and keys do not queue behind a thousand of them."""
        self._post = post
        self._open = open_session
        self._options = options
        self._record_to = record_to
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stop: Stop = _never
        self._closing = threading.Event()
        # A daemon: a load that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name="session", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def play(self, stop: Stop) -> None:
        """Step until nothing is left, `pause`, or a step at which `stop` says why."""
        self._commands.put(lambda: self._set_playing(True, stop))

    def pause(self) -> None:
        self._commands.put(lambda: self._set_playing(False))

    def step(self) -> None:
        self._commands.put(self._step)

    def restart(self, **changes: Unpack[RestartChanges]) -> None:
        self._commands.put(lambda: self._restart(changes))

    def force(self, at: int, tokens: dict[int, int]) -> None:
        self._commands.put(lambda: self._force(at, tokens))

    def read(self, step: int) -> None:
        """Through the logit lens."""
        self._commands.put(lambda: self._read(step))

    def switch(self, branch: int) -> None:
        self._commands.put(lambda: self._switch(branch))

    def measure(self) -> None:
        """Find the importance of the baseline's sublayers, once."""
        self._commands.put(self._measure)

    def set_variants(self, recipes: Sequence[str]) -> None:
        self._commands.put(lambda: self._set_variants(recipes))

    def close(self, timeout: float) -> None:
        """Close the session at the next step boundary; wait no longer than `timeout` seconds."""
        self._closing.set()
        self._commands.put(lambda: None)
        if self._thread.is_alive():
            self._thread.join(timeout)

    # -- on the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        if sys.platform == "linux":  # elsewhere it would be the whole process's
            thread = threading.get_native_id()
            niceness = os.getpriority(os.PRIO_PROCESS, thread) + NICENESS
            os.setpriority(os.PRIO_PROCESS, thread, niceness)
        try:
            self.session = self._open(self._options, self._record_to, self._progress)
        except _Closing:
            return
        except BaseException as error:
            self._end_stage()
            self._report(error)
            return
        self._end_stage()
        self._tell()
        while not self._closing.is_set():
            self._turn()
        try:
            self.session.end()
        except Exception:
            log.exception("closing the session")

    def _turn(self) -> None:
        try:
            try:
                command = self._commands.get(block=not self.playing)
            except queue.Empty:
                command = self._step
            command()
        except _Closing:
            return
        except Exception as error:
            self.playing = False
            self._report(error)
        self.busy = ""
        self._tell()

    def _set_playing(self, playing: bool, stop: Stop = _never) -> None:
        self.playing = playing
        self._stop = stop

    def _step(self) -> None:
        assert self.session is not None
        if self.session.finished:
            self.playing = False
        else:
            self.session.step()
            if self.playing and (why := self._stop(self.session.trace.steps)):
                self.playing = False
                self._post(Stopped(why))
            self.playing = self.playing and not self.session.finished

    def _restart(self, changes: RestartChanges) -> None:
        assert self.session is not None
        self.session.restart(**changes)

    def _force(self, at: int, tokens: dict[int, int]) -> None:
        assert self.session is not None
        self.playing = False
        self.session.force(at, tokens)

    def _read(self, step: int) -> None:
        assert self.session is not None
        # A restart may have come before.
        if step < len(self.session.trace.steps):
            self.busy = "reading the layers"
            self._tell()
            self.session.read(step)

    def _switch(self, branch: int) -> None:
        assert self.session is not None
        self.playing = False
        self.session.switch(branch)

    def _measure(self) -> None:
        assert self.session is not None
        if self.importance is None and not self.unmeasured:
            try:
                self.importance = self.session.importance()
            except UserError as error:
                self.unmeasured = str(error)

    def _set_variants(self, recipes: Sequence[str]) -> None:
        assert self.session is not None
        # What playing was to stop at may be a lane that is no more.
        self.playing = False
        self.session.set_variants(recipes)

    def _progress(self, text: str, fraction: float | None) -> None:
        if self._closing.is_set():
            raise _Closing
        if self.session is not None:
            self.busy = text if fraction is None else f"{text} {fraction:.0%}"
            self._tell()
            return
        if not self.stages or self.stages[-1].text != text:
            self._end_stage()
            self.stages.append(Stage(text, monotonic()))
        self.stages[-1].fraction = fraction

    def _tell(self) -> None:
        if not self.unseen:
            self.unseen = True
            self._post(Moved())

    def _end_stage(self) -> None:
        if self.stages:
            self.stages[-1].ended = monotonic()

    def _report(self, error: BaseException) -> None:
        if isinstance(error, UserError):
            self._post(Failed(str(error)))
        else:
            log.error("the session", exc_info=error)
            self._post(Failed(f"something went wrong in prunetui itself; {log_file()} says what"))
