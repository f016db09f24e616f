"""Copying, clicking, and help in a view with keys of its own."""

import os
from pathlib import Path
from typing import ClassVar

import pytest
from prunetui.tui.screens import inspector as inspector_module
from prunetui.tui.screens.help import HelpScreen
from prunetui.tui.screens.inspector import Inspector
from prunetui.tui.view import View
from prunetui.tui.views.base import InspectorView
from prunetui.tui.widgets.drift_panel import LABEL_CELLS
from textual.binding import Binding, BindingType
from textual.widgets import Static

from .test_screen import cells_of, inspector, replay, settled, told, until
from .traces import make_trace

COPIED = "prunetui/copied.txt"


async def test_the_lanes_text_up_to_the_cursor_is_copied_and_kept() -> None:
    app = replay(make_trace(20))
    async with app.run_test(notifications=True) as pilot:
        inspector(app).move_to(8)
        await pilot.press("up", "y")
        await until(pilot, lambda: told(app))
        text = " word0 word1 word2 word3[INST][/foo]␛[31mred␛]52;c;aGk=␇\n\n"
        assert app.clipboard == text
        file = Path(os.environ["XDG_STATE_HOME"]) / COPIED
        assert file.read_text("utf-8") == text
        assert told(app) == [f"Copied baseline up to step 8; it is also in {file}"]


async def test_a_copy_that_cannot_be_kept_is_still_copied() -> None:
    Path(os.environ["XDG_STATE_HOME"]).write_text("a file where the directory should be")
    app = replay(make_trace(20))
    async with app.run_test(notifications=True) as pilot:
        await pilot.press("home", "y")
        await until(pilot, lambda: any("Copied" in sentence for sentence in told(app)))
        assert app.clipboard == " word0"
        assert told(app)[-1].endswith("copied.txt: Not a directory")


@pytest.mark.parametrize(("steps", "bucket"), [(10, 1), (40, 4)])
async def test_a_click_in_the_charts_moves_the_cursor(steps: int, bucket: int) -> None:
    app = replay(make_trace(steps))
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.click("#drift", offset=(LABEL_CELLS + 7, 2))
        assert inspector(app).cursor == 7 * bucket
        for nowhere in ((LABEL_CELLS + 5, 0), (LABEL_CELLS - 1, 2), (38, 2)):
            await pilot.click("#drift", offset=nowhere)
            assert inspector(app).cursor == 7 * bucket


class Own(InspectorView):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "turn", "turn", tooltip="Turn it", id="own-turn")
    ]

    def show(self, view: View) -> None:
        pass


def help_titles(screen: HelpScreen) -> list[str]:
    return [str(title.content) for title in screen.query(".dialog-title").results(Static)]


async def test_help_lists_the_keys_of_the_view_and_closes_by_mouse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inspector_module, "VIEWS", [("own", Own, "A view")])
    app = replay(make_trace(20))
    async with app.run_test(size=(100, 50)) as pilot:
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        assert help_titles(app.screen) == ["Keys", "Marks", "Measures", "Contexts"]
        await pilot.press("escape")
        inspector(app).action_view("own")
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        assert help_titles(app.screen)[:2] == ["Keys of the view own", "Keys"]
        assert cells_of(app.screen.query(Static)[1]) == ["t", "Turn it"]
        app.screen.query_one("Button").scroll_visible(animate=False)
        await pilot.pause()
        await pilot.click("Button")
        assert isinstance(app.screen, Inspector)
