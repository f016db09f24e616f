"""Terminals of any size, and keys pressed at random: nothing ends the screen but its own key."""

import random
from collections.abc import Callable

import pytest
from prunetui.tui.app import InspectorApp
from prunetui.tui.screens.inspector import Inspector
from prunetui.tui.screens.keys import KEYS
from prunetui.tui.views.catalog import VIEWS
from prunetui.tui.widgets.panel import Panel
from textual.geometry import Size
from textual.pilot import Pilot

from ..support.fake_session import FakeSession
from ..support.screens import inspector, live, replay, settle, until
from ..support.traces import make_lens, make_trace, with_local

SIZES = [*range(4), 5, 8, 13, 20, 40]
SMALL = [(width, height) for width in SIZES for height in SIZES]


def recorded() -> InspectorApp:
    trace = with_local(make_trace(20))
    trace.set_lens(19, make_lens())
    return replay(trace)


def decoded() -> InspectorApp:
    return live(FakeSession())


@pytest.mark.parametrize("view", ["overview", *(name for name, _, _ in VIEWS)])
async def test_every_panel_draws_in_every_size(view: str) -> None:
    app = recorded()
    async with app.run_test(size=(120, 40)) as pilot:
        inspector(app).action_view(view)
        await settle(pilot)
        drawn = 0
        for panel in inspector(app).query(Panel):
            if not panel.is_on_screen:
                continue
            drawn += 1
            for width, height in SMALL:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(Panel, "size", Size(width, height))
                    cells = [panel.render_line(y).cell_length for y in range(height)]
                assert cells == [width] * height
        assert drawn >= 3
        await pilot.press("q")
    assert app.return_code == 0


OTHERS = ["e", "v", "g", "b", "t", "a", "question_mark", "ctrl+p"]


@pytest.mark.parametrize(
    "key", ["p", "enter", *(pytest.param(key, marks=pytest.mark.slow) for key in OTHERS)]
)
async def test_a_dialog_survives_a_terminal_of_no_columns_and_q_ends_it_there(key: str) -> None:
    app = decoded()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: inspector(app).trace is not None)
        await pilot.press("right", key)
        await until(pilot, lambda: not isinstance(app.screen, Inspector))
        for size in [(0, 0), (1, 24), (7, 7), (80, 1), (80, 24)]:
            await pilot.resize_terminal(*size)
        assert not isinstance(app.screen, Inspector)
        await pilot.resize_terminal(40, 12)
        await pilot.press("q")
    assert app.return_code == 0


async def test_keys_after_the_one_that_quits_do_nothing() -> None:
    app = recorded()
    async with app.run_test(size=(80, 24)):
        for key in "qepvqgb":
            app.simulate_key(key)
    assert app.return_code == 0


MONKEYS_KEYS = [key for binding in KEYS if binding.id != "quit" for key in binding.key.split(",")]
MONKEYS_KEYS += ["tab", "shift+tab", "escape", "backspace", "delete", "ctrl+r", "ctrl+p", "ctrl+u"]
MONKEYS_KEYS += [*"jhisdw.[<>=,5", "f1", "ctrl+d", "shift+up", "shift+down"]


async def press_at_random(
    app: InspectorApp, pilot: Pilot[None], seed: int, count: int, *, resizing: bool
) -> None:
    rng = random.Random(seed)
    for _ in range(count):
        if resizing and rng.random() < 0.1:
            await pilot.resize_terminal(rng.choice([*SIZES, 60, 80, 120]), rng.choice([*SIZES, 24]))
        await pilot.press(rng.choice(MONKEYS_KEYS))
        assert app.return_code is None


async def let_a_monkey_play(
    make: Callable[[], InspectorApp], size: tuple[int, int], seed: int, count: int, resizing: bool
) -> None:
    app = make()
    async with app.run_test(size=size) as pilot:
        await press_at_random(app, pilot, seed, count, resizing=resizing)
        # In a field, q is a letter.
        await pilot.resize_terminal(40, 12)
        await pilot.press("q")
    assert app.return_code == 0


PLACES = [((40, 12), False), ((80, 24), False), ((80, 24), True)]


@pytest.mark.parametrize(
    ("make", "size", "resizing"),
    [(decoded, (40, 12), False), (decoded, (80, 24), True), (recorded, (80, 24), True)],
)
async def test_a_monkey(
    make: Callable[[], InspectorApp], size: tuple[int, int], resizing: bool
) -> None:
    await let_a_monkey_play(make, size, 0, 40, resizing)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize(("size", "resizing"), PLACES)
@pytest.mark.parametrize("make", [decoded, recorded])
async def test_a_monkey_of_600_keys(
    make: Callable[[], InspectorApp], size: tuple[int, int], resizing: bool, seed: int
) -> None:
    await let_a_monkey_play(make, size, seed, 600, resizing)
