"""The end that comes from outside: a signal, or a terminal that is gone."""

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

END_SECONDS = 3.0
"""From the signal to the end of the process. The screen may be stuck in writing to a terminal
that reads no more, and torch in a step; what is in the trace file by then is whole lines."""


def end_when_told(end: Callable[[int], None]) -> None:
    """Call `end` with the exit code, from a thread, at SIGHUP, SIGTERM or when stdin hangs up.

    The process is gone `END_SECONDS` later, whatever `end` brings about.
    """
    told, tell = os.pipe()

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        os.write(tell, bytes([number]))

    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, handle)

    def wait() -> None:
        events = select.poll()
        events.register(told, select.POLLIN)
        if os.isatty(0):
            # No event is asked for: a hang-up is reported unasked, and reading is Textual's.
            events.register(0, 0)
        ready = {descriptor for descriptor, _ in events.poll()}
        # A terminal that hangs up sends SIGHUP only to those it controls.
        number = os.read(told, 1)[0] if told in ready else signal.SIGHUP
        end(128 + number)
        time.sleep(END_SECONDS)
        os._exit(128 + number)

    threading.Thread(target=wait, name="ending", daemon=True).start()
