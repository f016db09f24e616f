"""Keys in bursts: each goes where the keys before have led, and none ends the program."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from prunetui.tui.app import InspectorApp
from prunetui.tui.screens.export import ExportDialog
from prunetui.tui.screens.inspector import Inspector
from prunetui.tui.screens.keys import KEYS
from textual import events
from textual.pilot import Pilot

from ..support.fake_session import FakeSession
from ..support.screens import inspector, live, ready, replay, send, settle, until
from ..support.traces import make_lens, make_trace, with_local


def recorded() -> InspectorApp:
    trace = with_local(make_trace(20))
    trace.set_lens(19, make_lens())
    return replay(trace)


def decoded() -> InspectorApp:
    return live(FakeSession(most=100_000))


async def test_a_key_waits_for_the_dialog_that_the_one_before_opens() -> None:
    app = recorded()
    async with app.run_test(size=(80, 24)) as pilot:
        send(app, "g", "backspace", "backspace", "5", "enter", "right", "right")
        await until(pilot, lambda: inspector(app).cursor == 7)
        assert app.screen_stack == [inspector(app)]


async def test_a_dialog_that_has_been_left_leaves_nothing_else() -> None:
    app = decoded()
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, app)
        send(app, "g", *["escape", "space", "space"] * 5)
        await settle(pilot)
        assert app.screen_stack == [inspector(app)]


async def test_a_dialog_takes_the_screens_on_top_of_it_along() -> None:
    app = recorded()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("e", "ctrl+p")
        dialog = app.screen_stack[1]
        assert isinstance(dialog, ExportDialog)
        assert len(app.screen_stack) == 3
        dialog.dismiss()
        await settle(pilot)
        assert app.screen_stack == [inspector(app)]


async def test_the_palette_opened_and_left_in_bursts_ends_nothing() -> None:
    app = recorded()
    async with app.run_test(size=(80, 24)) as pilot:
        for _ in range(6):
            send(app, *["ctrl+p", "a", "enter"] * 2)
            await pilot.pause(0.3)
        assert isinstance(app.screen_stack[0], Inspector)
    assert app.return_code is None


async def test_keys_after_the_one_that_quits_do_nothing() -> None:
    app = recorded()
    async with app.run_test(size=(80, 24)):
        send(app, *"qepvqgb")
    assert app.return_code == 0


KEYS_OF_A_MONKEY = [
    *(key for binding in KEYS for key in binding.key.split(",")),
    *["tab", "shift+tab", "escape", "backspace", "delete", "home", "end", "shift+up", "shift+down"],
    *["ctrl+p", "ctrl+r", "ctrl+u", "ctrl+d", "ctrl+a", "f1", "f2", *"jhisdw.[<>=,5"],
    # What opens and leaves dialogs, more often.
    *["ctrl+p", "enter", "escape"] * 4,
]
BURSTS = [1, 1, 2, 3, 5, 8, 20]
SIZES = [0, 1, 2, 3, 5, 8, 13, 20, 24, 40, 60, 80, 120]
PASTE = "a line\nand [another] \x1b]0;title\x07"


async def play_at_random(app: InspectorApp, pilot: Pilot[None], seed: int, count: int) -> None:
    rng = random.Random(seed)
    sent = 0
    while sent < count:
        if rng.random() < 0.05:
            await pilot.resize_terminal(rng.choice(SIZES), rng.choice(SIZES))
        burst = [rng.choice(KEYS_OF_A_MONKEY) for _ in range(rng.choice(BURSTS))]
        send(app, *burst)
        sent += len(burst)
        if rng.random() < 0.1:
            app.post_message(events.Paste(PASTE))
        await asyncio.sleep(rng.choice([0, 0, 0.02]))
        assert app.return_code is None, burst


async def let_a_monkey_play(
    make: Callable[[], InspectorApp],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    seed: int,
    count: int,
) -> None:
    async def stay(_app: InspectorApp) -> None:
        pass

    # It exports too.
    monkeypatch.chdir(tmp_path)
    # The commands have them too.
    monkeypatch.setattr(InspectorApp, "action_quit", stay)
    monkeypatch.setattr(InspectorApp, "action_suspend_process", lambda _: None)
    # A resume leaves too, for another process.
    monkeypatch.setattr(InspectorApp, "_exit_to_resume", lambda *_: None)
    app = make()
    async with app.run_test(size=(80, 24)) as pilot:
        await play_at_random(app, pilot, seed, count)
        await until(pilot, lambda: not app.type_ahead.pending)
        monkeypatch.undo()
        # In a field, q is a letter.
        await pilot.resize_terminal(40, 12)
        await pilot.press("q")
    assert app.return_code == 0


@pytest.mark.parametrize("make", [decoded, recorded])
async def test_300_keys_at_random(
    make: Callable[[], InspectorApp], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await let_a_monkey_play(make, monkeypatch, tmp_path, seed=0, count=300)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(9))
@pytest.mark.parametrize("make", [decoded, recorded])
async def test_more_keys_at_random(
    make: Callable[[], InspectorApp], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int
) -> None:
    await let_a_monkey_play(make, monkeypatch, tmp_path, seed, count=2000)
