"""ctrl+c: copies what is selected, else quits at its second press, on every screen."""

import pytest
from prunetui.tui import app as app_module
from prunetui.tui.screens.inspector import Inspector
from textual.widgets import Input, TextArea

from ..support.fake_session import FakeSession
from ..support.screens import SIZE, live, notices, ready, replay, until

AGAIN = "Press ctrl+c again to quit."


@pytest.mark.parametrize("opening", ["", "g", "p", "e", "v", "question_mark", "ctrl+p"])
async def test_its_second_press_quits(opening: str) -> None:
    app = live(FakeSession())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot, app)
        await pilot.press("right", *filter(None, [opening]))
        await until(pilot, lambda: isinstance(app.screen, Inspector) == (not opening))
        if isinstance(app.focused, Input | TextArea) and (text := app.focused.selected_text):
            await pilot.press("ctrl+c")
            assert app.clipboard == text
        assert notices(app) == []
        await pilot.press("ctrl+c")
        assert (notices(app), app.return_code) == ([AGAIN], None)
        await pilot.press("ctrl+c")
    assert app.return_code == 0


async def test_it_works_on_too_small_a_terminal() -> None:
    app = replay()
    async with app.run_test(size=(20, 5)) as pilot:
        await pilot.press("ctrl+c")
        assert app.return_code is None
        await pilot.press("ctrl+c")
    assert app.return_code == 0


async def test_two_presses_far_apart_do_not_quit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(app_module, "monotonic", lambda: now)
    app = replay()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        for seconds in (0.0, 5.0, 5.0):
            now += seconds
            await pilot.press("ctrl+c")
            assert app.return_code is None
        now += 4.9
        await pilot.press("ctrl+c")
    assert app.return_code == 0


async def test_it_copies_what_is_selected_once() -> None:
    app = replay()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("question_mark")
        app.screen.text_select_all()
        await pilot.press("ctrl+c")
        assert "\nKeys\nMouse\nMarks\n" in app.clipboard
        assert notices(app) == []
        await pilot.press("ctrl+c")
        assert notices(app) == [AGAIN]
