"""Thread that owns the session: its priority."""

import os
import sys
import threading

import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.options import Options
from prunetui.tui.session_thread import NICENESS, SessionFailed, SessionThread


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has no priority of its own")
def test_the_screen_goes_before_the_session() -> None:
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    priorities = []
    told = threading.Event()

    def open_session(*_: object):
        priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        raise UserError("enough")

    def post(message: object) -> None:
        if isinstance(message, SessionFailed):
            told.set()

    thread = SessionThread(post, open_session, Options(), None)
    thread.start()
    assert told.wait(10)
    assert priorities == [min(own + NICENESS, 19)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own
