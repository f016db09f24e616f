"""Thread that owns the session: its priority, its pool's, and what a failure leaves."""

import os
import sys
import threading
import weakref
from pathlib import Path

import pytest
import torch
from prunetui.engine.errors import UserError
from prunetui.engine.model import device as device_module
from prunetui.engine.options import Options
from prunetui.engine.session import session as session_module
from prunetui.tui.session_thread import (
    NICENESS,
    SessionFailed,
    SessionThread,
    open_engine_session,
)

from ..support.fake_session import FakeSession


def niceness(thread: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread)


def threads() -> set[int]:
    return {int(path.name) for path in Path("/proc/self/task").iterdir()}


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has no priority of its own")
@pytest.mark.parametrize(("device", "added"), [("cpu", NICENESS), ("cuda", 0)])
def test_the_screen_goes_before_a_session_on_a_cpu_alone(
    device: str, added: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = niceness(threading.get_native_id())
    asked: list[str] = []
    nicenesses: set[int] = set()
    opened = threading.Event()

    def find_device(name: str) -> torch.device:
        asked.append(name)
        return torch.device(device)

    def open_session(*_: object) -> FakeSession:
        before, thread_count = threads(), torch.get_num_threads()
        # A thread gets its own pool of torch's threads with its first large operation.
        torch.set_num_threads(3)
        torch.ones(1 << 17).sum()
        pool = threads() - before
        torch.set_num_threads(thread_count)
        assert len(pool) >= 2
        nicenesses.update(map(niceness, [threading.get_native_id(), *pool]))
        return FakeSession()

    monkeypatch.setattr(device_module, "find_device", find_device)
    monkeypatch.setattr(session_module, "open_session", open_session)
    thread = SessionThread(
        lambda _: opened.set(), open_engine_session, Options(device="auto"), None
    )
    thread.start()
    assert opened.wait(10)
    thread.close(10)
    assert thread.session is not None
    assert asked == ["auto"]
    assert nicenesses == {min(own + added, 19)}
    assert niceness(threading.get_native_id()) == own


def test_an_error_that_the_screen_keeps_holds_nothing_of_what_failed() -> None:
    """`r` loads the model again while the first one's error is shown."""
    model: list[weakref.ref[torch.Tensor]] = []
    failures: list[tuple[SessionFailed, bool]] = []

    def open_session(*_: object):
        weights = torch.empty(8)
        model.append(weakref.ref(weights))
        try:
            raise torch.OutOfMemoryError
        except torch.OutOfMemoryError as error:
            raise UserError("out of memory") from error

    def post(message: object) -> None:
        if isinstance(message, SessionFailed):
            failures.append((message, model[0]() is not None))
            told.set()

    told = threading.Event()
    SessionThread(post, open_session, Options(), None).start()
    assert told.wait(10)
    assert [(failure.sentence, alive) for failure, alive in failures] == [("out of memory", False)]
