"""Keys of the inspector, on a live session of made-up steps and in replay."""

import threading
from pathlib import Path
from typing import NoReturn

import pytest
from prunetui.engine.errors import OptionError, PromptError, UserError
from prunetui.engine.options import Options
from prunetui.themes import BUILT_IN
from prunetui.tui.app import PrunetuiApp
from prunetui.tui.screens.inspector import Inspector
from prunetui.tui.screens.keys import KEYS
from prunetui.tui.screens.prompt import PromptEditor
from prunetui.tui.session_thread import Progress
from prunetui.tui.widgets.loading import LoadingPanel
from textual.widgets import Button, TextArea

from ..support.fake_session import FakeSession
from ..support.screens import (
    REPLAY_REFUSAL,
    SIZE,
    dialog_problem,
    inspector,
    live,
    notices,
    panel_text,
    ready,
    replay,
    screen_lines,
    until,
)
from ..support.traces import make_trace

# -- replay ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "cursor"),
    [
        ([], 19),
        (["right"], 19),
        (["left"], 18),
        (["left", "left", "right"], 18),
        (["shift+left"], 9),
        (["shift+left", "shift+left", "shift+left"], 0),
        (["home"], 0),
        (["home", "shift+right"], 10),
        (["home", "end"], 19),
        (["r"], 0),
    ],
)
async def test_keys_move_the_cursor(keys: list[str], cursor: int) -> None:
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press(*keys)
        assert inspector(app).cursor == cursor
        await until(pilot, lambda: f"step {cursor} " in panel_text(app, "#candidates"))


async def test_up_and_down_choose_the_lane() -> None:
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        assert inspector(app).lane == 1
        await pilot.press("down", "down")
        assert inspector(app).lane == 2
        await until(pilot, lambda: "drift of drop:mlp=1" in panel_text(app, "#drift"))
        await pilot.press("up", "up", "up")
        assert inspector(app).lane == 0
        await until(pilot, lambda: "does not drift" in panel_text(app, "#drift"))
        assert "drop:" not in panel_text(app, "#candidates")


async def test_space_plays_the_recorded_steps_from_the_start_and_pauses() -> None:
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("space")
        assert inspector(app).cursor < 19
        await until(pilot, lambda: 2 <= inspector(app).cursor < 19)
        await pilot.press("space")
        paused = inspector(app).cursor
        await until(pilot, lambda: "‖ replay" in panel_text(app, "#status"))
        assert inspector(app).cursor == paused
        await pilot.press("end", "left", "space")
        await until(pilot, lambda: inspector(app).cursor == 19)
        await until(pilot, lambda: inspector(app).state == "‖ replay")


@pytest.mark.parametrize("key", ["c", "p"])
async def test_keys_that_need_a_model_say_so_in_a_replay(key: str) -> None:
    app = replay()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press(key)
        await until(pilot, lambda: notices(app))
        assert notices(app) == [REPLAY_REFUSAL]


async def test_a_click_selects_the_lane_and_the_token() -> None:
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: "word" in panel_text(app, "#text"))
        rows = panel_text(app, "#text").splitlines()
        row = next(y for y, text in enumerate(rows) if "drop:mlp=1" in text)
        await pilot.click("#text", offset=(rows[row].index("word1") + 2, row))
        assert (inspector(app).lane, inspector(app).cursor) == (2, 1)


async def test_an_empty_trace_is_shown() -> None:
    app = replay(make_trace(0))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("left", "right", "space", "home", "end")
        assert inspector(app).cursor == -1


def test_bindings_have_ids_of_their_own_and_no_key_a_multiplexer_takes() -> None:
    ids = [key.id for key in KEYS]
    keys = [key.key for key in KEYS]
    assert None not in ids
    assert len(set(ids)) == len(ids)
    assert len(set(keys)) == len(keys)
    assert not {f"ctrl+{letter}" for letter in "basjohim"} & set(keys)


async def test_a_small_terminal_is_told_what_is_needed() -> None:
    app = replay()
    async with app.run_test(size=(50, 10)) as pilot:
        assert inspector(app).has_class("too-small")
        await pilot.resize_terminal(80, 24)
        assert not inspector(app).has_class("too-small")


async def test_an_unknown_theme_is_named_and_the_dark_one_is_used() -> None:
    app = PrunetuiApp.replay(make_trace(1), Path("x"), theme="none")
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: notices(app))
        assert notices(app) == [f"there is no theme none; there are {', '.join(BUILT_IN)}"]
        assert app.theme == "dark"


@pytest.mark.parametrize("key", ["q", "ctrl+q"])
async def test_quitting(key: str) -> None:
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press(key)
    assert app.return_code == 0


# -- live -----------------------------------------------------------------------------------------


async def test_right_decodes_a_step_at_the_live_end_and_moves_elsewhere() -> None:
    app = live(session := FakeSession())
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot, app)
        assert "space decodes" in panel_text(app, "#text")
        for steps in (1, 2, 3):
            await pilot.press("right")
            await until(pilot, lambda steps=steps: len(session.trace.steps) == steps)
        assert screen.cursor == 2
        await pilot.press("left", "left", "right")
        assert screen.cursor == 1
        assert len(session.trace.steps) == 3
        await until(pilot, lambda: "step 1 " in panel_text(app, "#candidates"))


async def test_space_decodes_to_the_end_and_the_last_state_is_drawn() -> None:
    app = live(session := FakeSession(most=30))
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot, app)
        await pilot.press("space")
        await until(pilot, lambda: "30/64 steps  ■ finished" in panel_text(app, "#status"))
        await until(pilot, lambda: "step 29 " in panel_text(app, "#candidates"))
        await pilot.press("space")
        await until(pilot, lambda: notices(app))
        assert notices(app) == ["Nothing is left to decode: 30 new tokens."]
    assert session.closed.is_set()


async def test_space_pauses() -> None:
    app = live(session := FakeSession(most=10**9))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot, app)
        await pilot.press("space")
        await until(pilot, lambda: len(session.trace.steps) > 3)
        await until(pilot, lambda: "▶ decoding" in panel_text(app, "#status"))
        await pilot.press("space")
        await until(pilot, lambda: "‖ paused" in panel_text(app, "#status"))
        steps = len(session.trace.steps)
        assert f"{steps}/64 steps" in panel_text(app, "#status")
    assert len(session.trace.steps) == steps


async def test_restart_takes_everything_back() -> None:
    app = live(session := FakeSession(most=5))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot, app)
        await pilot.press("space")
        await until(pilot, lambda: "finished" in panel_text(app, "#status"))
        trace = session.trace
        await pilot.press("home", "r")
        await until(pilot, lambda: "0/64 steps" in panel_text(app, "#status"))
        assert session.trace is trace
        assert inspector(app).cursor == -1


async def test_p_edits_the_prompt() -> None:
    app = live(session := FakeSession())
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot, app)
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, PromptEditor))
        editor = app.screen.query_one(TextArea)
        assert editor.text == "Why [do] these differ?"
        editor.text = "  \n"
        await pilot.press("ctrl+r")
        assert dialog_problem(app).startswith("The prompt is empty")
        editor.text = "Tell me."
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "prompt: Tell me." in panel_text(app, "#text"))
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, PromptEditor))
        await pilot.press("x", "escape", "y")
        await until(pilot, lambda: isinstance(app.screen, Inspector))
    assert session.trace.header.prompt.text == "Tell me."


async def test_a_failing_step_is_told_and_the_screen_stays() -> None:
    app = live(session := FakeSession())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot, app)
        await pilot.press("right")
        await until(pilot, lambda: session.trace.steps)
        session.fails = UserError("out of memory at step 1; the steps before it stand")
        await pilot.press("space")
        await until(pilot, lambda: "out of memory" in panel_text(app, "#status"))
        assert notices(app) == ["out of memory at step 1; the steps before it stand"]
        assert "word" in panel_text(app, "#text")
        session.fails = None
        await pilot.press("right")
        await until(pilot, lambda: "2/64 steps" in panel_text(app, "#status"))
        assert "out of memory" not in panel_text(app, "#status")


async def test_an_error_of_ours_names_the_log(caplog: pytest.LogCaptureFixture) -> None:
    app = live(session := FakeSession())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot, app)
        session.fails = RuntimeError("secret [prompt]")
        await pilot.press("right")
        await until(pilot, lambda: notices(app))
        assert notices(app)[0].endswith("prunetui.log says what")
    assert "secret [prompt]" in caplog.text


async def test_a_recording_that_stopped_is_told_once() -> None:
    app = live(session := FakeSession())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot, app)
        assert "not recorded" in panel_text(app, "#status")
        session.recording = Path("/x/20260101-1.trace.jsonl")
        await pilot.press("right")
        await until(pilot, lambda: "● 20260101-1" in panel_text(app, "#status"))
        session.recording_error = "the disk is full"
        await pilot.press("right")
        await until(pilot, lambda: notices(app))
        await pilot.press("right")
        await until(pilot, lambda: len(session.trace.steps) == 3)
        assert notices(app) == ["the disk is full"]


async def test_a_model_that_does_not_load_leaves_ways_on() -> None:
    prompts: list[str] = []
    session = FakeSession()

    def open_session(options: Options, record_to: Path | None, progress: Progress) -> FakeSession:  # noqa: ARG001
        prompts.append(options.prompt)
        progress("loading", None)
        if len(prompts) < 3:
            raise UserError("there is no such model; name another")
        return session

    app = PrunetuiApp(Options(prompt="One"), None, open_session=open_session)
    async with app.run_test(size=SIZE) as pilot:
        panel = inspector(app).query_one(LoadingPanel)
        await until(pilot, lambda: panel.problem)
        assert panel.problem == "there is no such model; name another"
        await pilot.press("r")
        await until(pilot, lambda: len(prompts) == 2 and panel.problem)
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, PromptEditor))
        app.screen.query_one(TextArea).text = "Two"
        await pilot.press("ctrl+r")
        await ready(pilot, app)
    assert prompts == ["One", "One", "Two"]


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (OptionError("no such layer"), "q quits, to type the command with another value"),
        (PromptError("it is too long"), "p edits the prompt   q quits"),
        (UserError("out of memory"), "r tries again   q quits"),
    ],
)
async def test_a_failed_start_names_the_keys_that_help(error: UserError, hint: str) -> None:
    def open_session(_options: Options, _record_to: Path | None, _progress: Progress) -> NoReturn:
        raise error

    app = PrunetuiApp(Options(), None, open_session=open_session)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: inspector(app).query_one(LoadingPanel).problem)
        await pilot.pause()
        lines = [line.strip() for line in screen_lines(app.screen)]
        assert lines[lines.index(str(error)) + 2] == hint


async def test_quitting_does_not_wait_for_a_load_and_ends_it_at_its_next_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prunetui.tui.screens.session_inspector.CLOSE_SECONDS", 0.01)
    going_on, ended = threading.Event(), threading.Event()

    def open_session(options: Options, record_to: Path | None, progress: Progress) -> FakeSession:  # noqa: ARG001
        try:
            going_on.wait(10)
            progress("too late", None)
            raise AssertionError("progress must not return once the screen is gone")
        finally:
            ended.set()

    app = PrunetuiApp(Options(), None, open_session=open_session)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("q")
    assert app.return_code == 0
    going_on.set()
    assert ended.wait(10)


async def test_buttons_do_what_their_keys_do() -> None:
    app = live(FakeSession())
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot, app)
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, PromptEditor))
        app.screen.query_one("#cancel", Button).press()
        await until(pilot, lambda: isinstance(app.screen, Inspector))
