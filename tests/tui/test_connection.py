"""What a user over SSH is told of the connection."""

import threading
from pathlib import Path

import pytest
from prunetui.engine.options import Options
from prunetui.engine.progress import Progress
from prunetui.tui.app import PrunetuiApp

from ..support.fake_session import FakeSession
from ..support.screens import both_sizes, screen_lines

PATH = Path("/home/me/a b.trace.jsonl")
ENDS = "This session ends with the SSH connection: neither tmux nor screen runs around it."


async def text_while_loading(record_to: Path | None, size: tuple[int, int]) -> str:
    """Words of the screen before the session has opened."""
    opens = threading.Event()

    def open_session(
        _options: Options, _record_to: Path | None, _progress: Progress
    ) -> FakeSession:
        opens.wait(10)
        return FakeSession()

    app = PrunetuiApp(Options(), record_to, open_session=open_session)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        text = " ".join(" ".join(screen_lines(app.screen)).split())
        opens.set()
    return text


@both_sizes
async def test_it_is_said_once_that_the_session_ends_with_it(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 50000 10.0.0.2 22")
    way_back = "If it breaks, the way back is prunetui --resume '/home/me/a b.trace.jsonl'."
    assert f"{ENDS} {way_back}" in await text_while_loading(PATH, size)
    assert ENDS not in await text_while_loading(PATH, size)


async def test_without_a_trace_there_is_no_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 50000 10.0.0.2 22")
    said = f"{ENDS} If it breaks, --no-trace leaves nothing to resume."
    assert said in await text_while_loading(None, (80, 24))


@pytest.mark.parametrize("name", ["TMUX", "STY", "ZELLIJ", None])
async def test_where_the_session_stays_nothing_is_said(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name:
        monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 50000 10.0.0.2 22")
        monkeypatch.setenv(name, "0")
    assert ENDS not in await text_while_loading(PATH, (80, 24))
