"""Shutdown from outside: by a signal, or because the terminal or a pipe has gone."""

import contextlib
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, Self

GRACE_SECONDS = 3.0
"""Time from the first signal to the end of the process, if nothing else ends it; a second signal
ends it at once. The screen may be stuck in writing to a terminal that reads no more, and torch in
a step or in loading; what is in the trace file by then is whole lines."""

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)

SHOW_CURSOR = b"\x1b[?25h"

_INTERRUPT = signal.SIGURG
"""Signal that interrupts the main thread; ignored by default, so not sent to end a process."""


class ShutdownRequested(KeyboardInterrupt):
    """Raised in the main thread when the process shall end."""


class ShutdownWatcher:
    """Calls a callback with the exit code, from a thread, when the process shall end.

    While entered, it watches for `SIGNALS` and for a pipe on stdout or stderr that loses its
    reader. The callback raises `ShutdownRequested` in the main thread until `set_callback` replaces
    it. A signal that the parent had ignored, as nohup does, stays ignored.
    """

    code = 0
    """Exit code, 128 + the signal's number; 0 until a shutdown is requested."""

    def __init__(self) -> None:
        self._wakeup = -1
        """Write end of the pipe that wakes the thread; -1 while not entered."""
        os.register_at_fork(after_in_child=self._restore)

    def __enter__(self) -> Self:
        self.code = 0
        self._callback: Callable[[int], None] = _interrupt_main
        # Only pipes: a shell sends SIGHUP to the jobs that are to end with their terminal.
        self._hangups = {fd: signal.SIGPIPE for fd in (1, 2) if not os.isatty(fd)}
        read_end, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        self._handlers = {
            number: signal.signal(number, _do_nothing)
            for number in SIGNALS
            if signal.getsignal(number) != signal.SIG_IGN
        }
        # A handler in Python waits until torch comes back; this is written at once.
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        self._handlers[_INTERRUPT] = signal.signal(_INTERRUPT, self._raise_if_requested)
        threading.Thread(target=self._watch, args=(read_end,), name="shutdown", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def set_callback(self, callback: Callable[[int], None]) -> None:
        """Replace the callback, and watch a terminal on stdin for hanging up.

        A terminal sends SIGHUP only to the processes it controls.
        """
        self._callback = callback
        self._hangups = {0: signal.SIGHUP} if os.isatty(0) else {}
        os.write(self._wakeup, b"\0")

    def _restore(self) -> None:
        """Restore the signal handlers; also run in a child process, whose signals are its own."""
        if self._wakeup < 0:
            return
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._wakeup)
        self._wakeup = -1

    def _raise_if_requested(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        # From another process the signal means nothing.
        if self.code:
            raise ShutdownRequested

    def _watch(self, read_end: int) -> None:
        number = None
        while number is None:
            number = self._wait(read_end)
        if number:
            self.code = 128 + number
            self._callback(self.code)
            deadline = time.monotonic() + GRACE_SECONDS
            number = None
            while number is None and (left := deadline - time.monotonic()) > 0:
                number = self._wait(read_end, left)
            if number != 0:
                exit_now(self.code)
        os.close(read_end)

    def _wait(self, read_end: int, seconds: float | None = None) -> int | None:
        """Signal number of the next event, 0 after `__exit__`, or None for any other event.

        With a time limit, hang-ups are not watched.
        """
        events = select.poll()
        events.register(read_end, select.POLLIN)
        for descriptor in self._hangups if seconds is None else ():
            # A hang-up is reported without being asked for.
            events.register(descriptor, 0)
        ready = dict(events.poll(None if seconds is None else seconds * 1000))
        if read_end in ready:
            numbers = os.read(read_end, 100)
            return next((number for number in numbers if number in SIGNALS), None if numbers else 0)
        for descriptor, event in ready.items():
            number = self._hangups.pop(descriptor)
            if event & (select.POLLHUP | select.POLLERR):
                return number
        return None


SHUTDOWN = ShutdownWatcher()


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Handle a signal in Python, so that its number is written to the wakeup descriptor."""


def _interrupt_main(code: int) -> None:  # noqa: ARG001
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, _INTERRUPT)


def flush_and_exit(code: int) -> NoReturn:
    """End the process at once, after writing what was printed and logged."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    exit_now(code)


def exit_now(code: int) -> NoReturn:
    """End the process without anything that could block, with the terminal's cursor shown."""
    # The code that has hidden the cursor may not have come to show it.
    if os.isatty(2):
        show = threading.Thread(target=_show_cursor, daemon=True)
        show.start()
        # A terminal that reads no more would hold the process.
        show.join(0.5)
    os._exit(code)


def _show_cursor() -> None:
    with contextlib.suppress(OSError):
        os.write(2, SHOW_CURSOR)
