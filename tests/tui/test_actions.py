"""Going to steps, stopping at them, forcing tokens and moving between branches, by keys."""

import msgspec
import pytest
from prunetui.engine.trace.printable import visible
from prunetui.engine.trace.records import Step, Token
from prunetui.engine.trace.trace import Trace
from prunetui.tui.screens.ask import AskDialog
from prunetui.tui.screens.choose import BranchesDialog, ForceDialog
from textual.pilot import Pilot
from textual.widgets import Input, Label, OptionList

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
    until,
)
from ..support.traces import make_step, make_trace, with_local


def make_forced(step: Step, token: int) -> Token:
    """The token of lane 1, had the user forced another."""
    own = step.lanes[1]
    assert own is not None
    return msgspec.structs.replace(own, token=token, forced=True)


def branched() -> Trace:
    trace = make_trace(20)
    trace.fork(6)
    for number in range(6, 12):
        trace.append(make_step(number))
    return trace


@pytest.mark.parametrize(
    ("keys", "cursor"),
    [
        # Lane 1 differs from step 4 on, lane 2 from step 8.
        (["home", "n"], 4),
        (["home", "x"], 4),
        (["home", "n", "n"], 5),
        (["home", "down", "n"], 8),
        (["home", "up", "n"], 4),
        (["N"], 18),
        (["home", "N"], 0),
        (["n"], 19),
        (["x"], 4),
        (["down", "x"], 8),
        (["down", "x", "up", "up", "x"], 4),
    ],
)
async def test_keys_go_to_divergent_steps(keys: list[str], cursor: int) -> None:
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press(*keys)
        assert inspector(app).cursor == cursor


def in_context_both() -> Trace:
    """A trace of 20 steps whose lane 1 disagrees locally at steps 5, 9 and 15, lane 2 at 11."""
    trace = with_local(make_trace(20))
    for number, step in enumerate(trace.steps):
        agree = (number not in (5, 9, 15), number != 11)
        local = [
            msgspec.structs.replace(drift, top1=top1) if drift else None
            for drift, top1 in zip(step.local or [], agree, strict=True)
        ]
        trace.steps[number] = msgspec.structs.replace(step, local=local)
    return trace


async def test_n_goes_through_local_disagreements_and_says_where_they_end() -> None:
    app = replay(in_context_both())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = inspector(app)
        await pilot.press("home")
        for cursor in (5, 9, 15, 15):
            await pilot.press("n")
            assert screen.cursor == cursor
        assert notices(app) == [
            "No later step where the local top-1 of drop:attn=1 is not the baseline's: "
            "3 in all, the last at step 15."
        ]
        await until(pilot, lambda: "local top-1 ≠ (3 of 3)" in panel_text(app, "#status"))
        await pilot.press("N", "right", "N")
        assert screen.cursor == 9
        await until(pilot, lambda: "local top-1 ≠ (2 of 3)" in panel_text(app, "#status"))
        # Away from what it led to, nothing more is said of it.
        await pilot.press("left")
        await until(pilot, lambda: "local top-1" not in panel_text(app, "#status"))
        await pilot.press("n", "down")
        await until(pilot, lambda: "drift of drop:mlp=1" in panel_text(app, "#drift"))
        assert "local top-1" not in panel_text(app, "#status")
        await pilot.press("up", "up", "home", *["n"] * 3)
        assert (screen.cursor, screen.lane) == (11, 0)


async def test_a_free_context_says_that_it_has_no_local_numbers_once() -> None:
    app = replay()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("home", "n")
        assert notices(app) == [
            "Context free has no local numbers: n goes to tokens that differ (≠)."
        ]
        await pilot.press("n")
        assert notices(app) == []
        await until(pilot, lambda: "≠ (2 of 16)" in panel_text(app, "#status"))


async def test_a_condition_is_sought_and_the_text_searched_after_it() -> None:
    app = replay(in_context_both())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = inspector(app)

        async def status(text: str) -> None:
            await until(pilot, lambda: text in panel_text(app, "#status"))

        await pilot.press("home")
        await answer(pilot, "b", "lane 2 differs")
        await status("◉ lane 2 differs (12)")
        await pilot.press("n")
        assert (screen.cursor, screen.lane) == (8, 2)
        await status("◉ lane 2 differs (1 of 12)")
        await pilot.press("home", "up")
        await answer(pilot, "slash", "WORD2")
        assert dialog_problem(app) == "no lane's text has 'WORD2'."
        app.screen.query_one(Input).value = "word2 word3"
        await pilot.press("enter")
        # Before they differ all lanes have it; the selected one stays.
        await status("◉ lane 2 differs  /word2 word3 (1 of ")
        assert (screen.cursor, screen.lane) == (2, 1)
        # Lane 2, then lane 0, each where it says so.
        await pilot.press("n", "n", "n", "n")
        assert (screen.cursor, screen.lane) == (14, 0)
        assert notices(app)[-1] == (
            "No later step where 'word2 word3' begins: 4 in all, the last at step 14."
        )
        # Emptied, the condition is the newest; then nothing is set.
        await answer(pilot, "slash", "")
        await status("◉ lane 2 differs (7 of 12)")
        await answer(pilot, "b", "")
        await pilot.press("home", "down", "n")
        assert screen.cursor == 5


async def test_a_search_from_the_end_goes_back() -> None:
    app = replay()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await answer(pilot, "slash", "word0")
        assert inspector(app).cursor == 12
        assert notices(app) == ["No later step where 'word0' begins: this is the last."]


async def test_what_is_sought_goes_on_in_another_history() -> None:
    session = recorded(20)
    app = live(session)
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot, app)
        await answer(pilot, "slash", "word1")
        assert screen.cursor == 13
        await pilot.press("r")
        await until(pilot, lambda: "/word1 (0)" in panel_text(app, "#status"))
        await pilot.press(*["right"] * 4)
        await until(pilot, lambda: "/word1 (1)" in panel_text(app, "#status"))


async def test_x_says_that_nothing_differs() -> None:
    app = replay(make_trace(3))
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("x")
        assert notices(app) == ["drop:attn=1 does not differ from the baseline."]
        await pilot.press("up", "x")
        assert notices(app) == ["No variant differs from the baseline."]
    session = recorded(3, most=3)
    app = live(session)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot, app)
        await pilot.press("x")
        assert notices(app) == [
            "drop:attn=1 does not differ, and nothing is left to decode: 3 new tokens."
        ]


async def test_g_goes_to_a_step_and_says_which_there_are() -> None:
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("g")
        await until(pilot, lambda: isinstance(app.screen, AskDialog))
        app.screen.query_one(Input).value = "20"
        await pilot.press("enter")
        problem = app.screen.query_one(".dialog-problem", Label)
        assert str(problem.content) == "'20' is no step; steps are 0 to 19."
        app.screen.query_one(Input).value = "7"
        await pilot.press("enter")
        await until(pilot, lambda: inspector(app).cursor == 7)


async def test_x_decodes_on_to_the_next_divergent_step() -> None:
    session = FakeSession()
    app = live(session)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await ready(pilot, app)
        await pilot.press("x")
        await until(pilot, lambda: notices(app) == ["Stopped: step 4 differs."])
        assert len(session.trace.steps) == 5
        assert screen.cursor == 4


async def answer(pilot: Pilot[None], key: str, text: str) -> None:
    """Press a key that asks for a text, and give it."""
    await pilot.press(key)
    await until(pilot, lambda: isinstance(pilot.app.screen, AskDialog))
    pilot.app.screen.query_one(Input).value = text
    await pilot.press("enter")
    await pilot.pause()


async def test_playing_stops_where_a_condition_holds() -> None:
    session = FakeSession()
    app = live(session)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await ready(pilot, app)
        await answer(pilot, "b", "speed > 3")
        problem = app.screen.query_one(".dialog-problem", Label)
        assert str(problem.content).startswith("there is no measure speed")
        await pilot.press("escape")
        await answer(pilot, "b", "lane 2 differs")
        await until(pilot, lambda: "◉ lane 2 differs" in panel_text(app, "#status"))
        await pilot.press("space")
        await until(pilot, lambda: notices(app) == ["Stopped: drop:mlp=1 differs."])
        assert len(session.trace.steps) == 9
        await answer(pilot, "b", "")
        await until(pilot, lambda: "◉" not in panel_text(app, "#status"))


def recorded(steps: int, most: int = 64) -> FakeSession:
    session = FakeSession(most)
    for _ in range(steps):
        session.step()
    return session


async def test_space_shows_the_recorded_steps_and_then_decodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[tuple[int, int, str]] = []
    session = recorded(6, most=9)
    app = live(session)
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot, app)
        await pilot.press("home")
        draw = screen.draw

        def watch(*, by_key: bool = False) -> None:
            shown.append((screen.cursor, len(session.trace.steps), screen.state))
            draw(by_key=by_key)

        monkeypatch.setattr(screen, "draw", watch)
        await pilot.press("space")
        await until(pilot, lambda: screen.state == "■ finished")
        # One by one, with nothing decoded until the last of them is shown.
        assert shown[:5] == [(step, 6, "▶ recorded") for step in range(5)]
        assert shown[5][0] >= 5
        assert (screen.cursor, len(session.trace.steps)) == (8, 9)


async def test_space_pauses_among_recorded_steps() -> None:
    session = recorded(20)
    app = live(session)
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot, app)
        await pilot.press("home", "space")
        await until(pilot, lambda: screen.cursor >= 2)
        await pilot.press("space")
        paused = screen.cursor
        assert screen.state == "‖ paused"
        await pilot.pause(0.15)
        assert (screen.cursor, len(session.trace.steps)) == (paused, 20)


async def test_a_condition_stops_at_recorded_steps_too() -> None:
    session = recorded(20)
    app = live(session)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await ready(pilot, app)
        await answer(pilot, "b", "lane 2 differs")
        await pilot.press("home", *["shift+right"], *["left"] * 5, "space")
        await until(pilot, lambda: notices(app) == ["Stopped: drop:mlp=1 differs."])
        assert (screen.cursor, len(session.trace.steps)) == (8, 20)
        assert screen.state == "‖ paused"


@pytest.mark.parametrize("key", ["r", "c"])
async def test_what_begins_again_is_not_played(key: str) -> None:
    session = recorded(20)
    app = live(session)
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot, app)
        await pilot.press("end", "left", "left", "space", key)
        await until(pilot, lambda: screen.trace is session.trace and not session.trace.steps)
        await pilot.pause(0.15)
        assert screen.state == "‖ paused"
        assert session.trace.steps == []


async def test_a_replay_stops_there_too() -> None:
    app = replay()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await answer(pilot, "b", "differs")
        await pilot.press("home", "space")
        await until(pilot, lambda: notices(app) == ["Stopped: drop:attn=1 differs."])
        assert inspector(app).cursor == 4


@pytest.mark.parametrize(("key", "lanes"), [("enter", [1]), ("a", [0, 1, 2])])
async def test_a_candidate_is_forced_at_the_cursor(key: str, lanes: list[int]) -> None:
    session = FakeSession()
    for _ in range(10):
        session.step()
    app = live(session)
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot, app)
        await pilot.press("left", "left", "enter")
        await until(pilot, lambda: isinstance(app.screen, ForceDialog))
        shown_first = app.screen.query_one(OptionList).get_option_at_index(1)
        await pilot.press("down", key)
        await until(pilot, lambda: session.forced)
        ((at, tokens),) = session.forced
        step = session.trace.branches[0][7]
        text = step.candidates.texts[step.candidates.tokens.index(tokens[lanes[0]])]
        assert visible(text) in str(shown_first.prompt)
        assert (at, [*tokens]) == (7, lanes)
        await until(pilot, lambda: screen.cursor == 7)
        await until(pilot, lambda: "branch 2 of 2" in panel_text(app, "#status"))


async def test_a_token_that_the_lane_took_is_not_forced() -> None:
    session = recorded(10)
    app = live(session)
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot, app)
        own = session.trace.steps[9].lanes[1]
        assert own is not None
        await screen.run_action(f"force({own.token})")
        await until(pilot, lambda: isinstance(app.screen, ForceDialog))
        await pilot.press("enter")
        assert dialog_problem(app) == (
            f"drop:attn=1 takes {own.text!r} at step 9 already; force another token."
        )
        await pilot.press("escape")
        assert (session.forced, len(session.trace.branches)) == ([], 1)
        assert screen.cursor == 9


async def test_a_branch_that_has_the_token_is_shown() -> None:
    session = recorded(10)
    step = session.trace.steps[6]
    token = step.candidates.tokens[0]
    lanes = [step.lanes[0], make_forced(step, token), step.lanes[2]]
    session.trace.fork(6)
    session.trace.append(msgspec.structs.replace(step, lanes=lanes))
    session.trace.append(make_step(7))
    session.trace.switch(0)
    app = live(session)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await ready(pilot, app)
        await pilot.press("left", "left", "left")
        await screen.run_action(f"force({token})")
        await until(pilot, lambda: isinstance(app.screen, ForceDialog))
        await pilot.press("enter")
        await until(pilot, lambda: session.trace.branch == 1)
        await until(pilot, lambda: notices(app) == ["Branch 2 has that token at step 6 already."])
        assert (session.forced, len(session.trace.branches), screen.cursor) == ([], 2, 6)


async def test_the_tree_leads_from_branch_to_branch() -> None:
    app = replay(branched())
    async with app.run_test(size=SIZE) as pilot:
        screen = inspector(app)
        assert screen.cursor == 11
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, BranchesDialog))
        choices = app.screen.query_one(OptionList)
        lines = [str(option.prompt) for option in choices.options]
        assert lines[0] == "  as decoded, 20 steps"
        assert lines[1].startswith("● └ step 6: ")
        assert lines[1].endswith(", 12 steps")
        await pilot.press("up", "enter")
        await until(pilot, lambda: screen.cursor == 19)
        assert "branch 1 of 2" in panel_text(app, "#status")


@pytest.mark.parametrize(
    ("again", "line"),
    [([], "taken back, 4 steps"), ([4], "nothing forced, 5 steps")],
)
async def test_a_branch_taken_back_past_its_beginning_says_so(again: list[int], line: str) -> None:
    trace = branched()
    trace.rewind(4)
    for number in again:
        trace.append(make_step(number))
    app = replay(trace)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, BranchesDialog))
        lines = [str(o.prompt) for o in app.screen.query_one(OptionList).options]
        assert lines[1] == f"● └ step 4: {line}"


async def test_a_replay_forces_nothing() -> None:
    app = replay()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("enter")
        assert notices(app) == [REPLAY_REFUSAL]


async def test_contexts_cycle() -> None:
    session = FakeSession()
    app = live(session)
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot, app)
        for context in ("forced", "both", "free"):
            await pilot.press("c")
            await until(pilot, lambda c=context: session.trace.header.context == c)
