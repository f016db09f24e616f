"""Terminals of any size."""

import pytest
from prunetui.tui.app import InspectorApp
from prunetui.tui.screens.inspector import Inspector
from prunetui.tui.views.catalog import VIEWS
from prunetui.tui.widgets.panel import Panel
from textual.geometry import Size

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
