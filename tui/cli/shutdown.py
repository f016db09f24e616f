"""The end that comes from outside: a signal, or a terminal or pipe that is gone."""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, Self

END_SECONDS = 3.0
"""From the first signal to the end of the process, if nothing else ends it; the second signal
does so at once. The screen may be stuck in writing to a terminal that reads no more, and torch in
a step or in loading; what is in the trace file by then is whole lines."""

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)

SHOW_CURSOR = b"\x1b[?25h"


class Told(KeyboardInterrupt):
    """The process was told to end."""


class Ending:
    """While entered, has a signal of `SIGNALS`, or a pipe on stdout or stderr that loses its
    reader, call `end` with the exit code, from a thread.

    At first `end` raises `Told` in the main thread. `code` is 0 until the first call. A signal that
    the parent had ignored, as nohup does, stays ignored.
    """

    def __init__(self) -> None:
        self.code = 0
        self._tell = -1
        os.register_at_fork(after_in_child=self._forget)

    def __enter__(self) -> Self:
        self.code = 0
        self._end: Callable[[int], None] = _raise_in_main
        # Only pipes: a shell sends SIGHUP to the jobs that are to end with their terminal.
        self._gone = {fd: signal.SIGPIPE for fd in (1, 2) if not os.isatty(fd)}
        told, self._tell = os.pipe()
        os.set_blocking(self._tell, False)
        self._handlers = {
            number: signal.signal(number, _do_nothing)
            for number in SIGNALS
            if signal.getsignal(number) != signal.SIG_IGN
        }
        # A handler in Python waits until torch comes back; this is written at once.
        signal.set_wakeup_fd(self._tell, warn_on_full_buffer=False)
        self._handlers[_RAISE] = signal.signal(_RAISE, self._raise)
        threading.Thread(target=self._watch, args=(told,), name="ending", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()

    def _forget(self) -> None:
        """Also in a child process, whose signals are its own."""
        if self._tell < 0:
            return
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._tell)
        self._tell = -1

    def call(self, end: Callable[[int], None]) -> None:
        """Call this from now on, and also when stdin is a terminal that hangs up.

        A terminal sends SIGHUP only to those it controls.
        """
        self._end = end
        self._gone = {0: signal.SIGHUP} if os.isatty(0) else {}
        os.write(self._tell, b"\0")

    def _raise(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        # From outside it means nothing.
        if self.code:
            raise Told

    def _watch(self, told: int) -> None:
        number = None
        while number is None:
            number = self._wait(told)
        if number:
            self.code = 128 + number
            self._end(self.code)
            deadline = time.monotonic() + END_SECONDS
            number = None
            while number is None and (left := deadline - time.monotonic()) > 0:
                number = self._wait(told, left)
            if number != 0:
                end_now(self.code)
        os.close(told)

    def _wait(self, told: int, seconds: float | None = None) -> int | None:
        """The number of the signal, 0 once this is left, None for anything else. With a time, only
        for signals."""
        events = select.poll()
        events.register(told, select.POLLIN)
        for descriptor in self._gone if seconds is None else ():
            # No event is asked for: a hang-up is reported unasked.
            events.register(descriptor, 0)
        ready = dict(events.poll(None if seconds is None else seconds * 1000))
        if told in ready:
            numbers = os.read(told, 100)
            return next((number for number in numbers if number in SIGNALS), None if numbers else 0)
        for descriptor, event in ready.items():
            number = self._gone.pop(descriptor)
            if event & (select.POLLHUP | select.POLLERR):
                return number
        return None


ENDING = Ending()

_RAISE = signal.SIGURG
"""Ignored by default, so that nobody sends it to end a process."""


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """A handler, so that the number is written to the wakeup descriptor."""


def _raise_in_main(code: int) -> None:  # noqa: ARG001
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, _RAISE)


def end_now(code: int) -> NoReturn:
    """Without anything that could wait."""
    # Whoever has hidden the cursor may not have come to show it.
    if os.isatty(2):
        show = threading.Thread(target=_show_cursor, daemon=True)
        show.start()
        # A terminal that reads no more would hold the process.
        show.join(0.5)
    os._exit(code)


def _show_cursor() -> None:
    with contextlib.suppress(OSError):
        os.write(2, SHOW_CURSOR)
