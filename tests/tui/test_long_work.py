"""Long work of a live session: how far it is, what it replaces, and esc, which cancels it."""

import pytest
from prunetui.engine.errors import UserError
from prunetui.tui.app import InspectorApp
from prunetui.tui.screens import session_inspector
from prunetui.tui.screens.ask import AskDialog, ConfirmDialog
from prunetui.tui.screens.prompt import PromptEditor
from prunetui.tui.session_thread import Stage
from prunetui.tui.widgets.fields import TextBox
from textual.widgets import Input

from ..support.fake_session import FakeSession
from ..support.screens import inspector, live, notices, panel_text, ready, settle, until


@pytest.fixture(autouse=True)
def _stale_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_inspector, "STALE_SECONDS", 0.0)


def test_a_stage_says_its_share_and_its_seconds() -> None:
    assert Stage("reading", began=10.0, ended=10.4).line == "reading"
    assert Stage("reading", began=10.0, ended=22.4).line == "reading · 12 s"
    assert Stage("reading", began=10.0, fraction=0.456, ended=22.4).line == "reading 46% · 12 s"


def is_at_work(app: InspectorApp, stage: str) -> bool:
    """Whether the status line shows the stage, after however many seconds."""
    status = panel_text(app, "#status")
    return f"… {stage}" in status and "· esc cancels" in status


async def test_a_prompt_that_is_read_is_shown_cancelled_and_there_to_edit_on() -> None:
    app = live(session := FakeSession())
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await ready(pilot, app)
        await pilot.press("right", "right")
        await until(pilot, lambda: "2/64 steps" in panel_text(app, "#status"))
        trace = session.trace
        session.released.clear()
        await pilot.press("p", *"Other", "ctrl+r")
        await until(pilot, lambda: is_at_work(app, "reading the prompt 25%"))
        await until(pilot, lambda: screen.has_class("stale"))
        # What was asked for after it is not done either.
        await pilot.press("right", "space", "escape")
        await until(pilot, lambda: "‖ paused" in panel_text(app, "#status"))
        session.released.set()
        assert not screen.has_class("stale")
        assert notices(app) == ["Cancelled: all is as it was. p has your edits."]
        assert session.trace is screen.trace is trace
        assert len(trace.steps) == 2
        await pilot.press("p")
        assert app.screen.query_one(TextBox).text == "Other"
        await pilot.press("ctrl+r")
        await until(pilot, lambda: screen.trace is not trace)
        assert session.trace.header.prompt.text == "Other"
        await pilot.press("right", "p")
        assert app.screen.query_one(TextBox).text == "Other"


async def test_the_layers_that_are_read_replace_nothing_and_esc_stays_in_the_view() -> None:
    app = live(session := FakeSession())
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await ready(pilot, app)
        await pilot.press("right")
        await until(pilot, lambda: session.trace.steps)
        session.released.clear()
        await pilot.press("2", "l")
        await until(pilot, lambda: is_at_work(app, "reading the layers 25%"))
        assert not screen.has_class("stale")
        await pilot.press("escape")
        await until(pilot, lambda: notices(app) == ["Cancelled: all is as it was."])
        assert screen.chosen_view == "layers"
        assert session.trace.steps[0].lens is None
        session.released.set()
        await settle(pilot)
        await pilot.press("escape")
        await settle(pilot)
        assert screen.chosen_view == "overview"


class Refusing(FakeSession):
    def restart(self, **changes: object) -> None:
        raise UserError(f"refused: {sorted(changes)}")


async def test_what_is_refused_is_there_to_edit_on() -> None:
    app = live(Refusing())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await ready(pilot, app)
        await pilot.press("p", *"Other", "ctrl+r")
        await until(pilot, lambda: "refused" in screen.alert)
        await pilot.press("p")
        assert app.screen.query_one(TextBox).text == "Other"
        await pilot.press("escape")
        assert app.screen is screen
        await pilot.press("a", "ctrl+a", *" x, y", "enter")
        await until(pilot, lambda: "answers" in screen.alert)
        await pilot.press("a")
        assert isinstance(app.screen, AskDialog)
        assert app.screen.query_one(Input).value == " x, y"


async def test_the_prompt_editor_asks_before_edits_are_lost() -> None:
    app = live(FakeSession())
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, app)
        await pilot.press("p", "right", "!", "escape")
        assert isinstance(app.screen, ConfirmDialog)
        await pilot.press("escape")
        editor = app.screen
        assert isinstance(editor, PromptEditor)
        await pilot.press("backspace", "escape")
        assert app.screen is inspector(app)
        await pilot.press("p", "x", "escape", "y")
        assert app.screen is inspector(app)


async def test_esc_without_work_cancels_no_later_command() -> None:
    app = live(session := FakeSession())
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await ready(pilot, app)
        await pilot.press("escape", "right")
        await until(pilot, lambda: len(session.trace.steps) == 1)
        assert notices(app) == []
