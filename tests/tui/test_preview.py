"""Candidates and drift of the token to come, before anything is decoded."""

from msgspec.structs import replace
from prunetui.tui.screens.choose import BranchesDialog, ForceDialog
from prunetui.tui.widgets.candidates import CHOSEN, quoted
from textual.widgets import OptionList

from ..support.fake_session import FakeSession
from ..support.screens import live, panel_text, ready, replay, settle, until
from ..support.steps import drift_of
from ..support.traces import make_step, make_trace

INVITATION = "The prompt is read. space decodes, → takes one step."


async def test_the_prompts_candidates_are_there_before_a_step() -> None:
    session = FakeSession()
    app = live(session)
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot, app)
        await settle(pilot)
        candidates, drift = panel_text(app, "#candidates"), panel_text(app, "#drift")
        assert session.trace.steps == []
        assert INVITATION in panel_text(app, "#text")
        assert "next token at step 0 " in candidates
        assert candidates.count(' "') == 8
        assert CHOSEN not in candidates
        assert drift_of(make_step(0)).cos_h == 1
        assert "1 − cos              0        0        0       0 nats" in drift
        assert "orthogonal" in drift
        await pilot.press("right")
        await until(pilot, lambda: session.trace.steps)
        await settle(pilot)
        # The numbers stay, and what was chosen is marked.
        assert CHOSEN in panel_text(app, "#candidates")
        assert sorted(drawn_probabilities(candidates)) == sorted(
            drawn_probabilities(panel_text(app, "#candidates").replace(CHOSEN, ""))
        )


def drawn_probabilities(candidates: str) -> list[str]:
    return [line.split()[-1] for line in candidates.splitlines() if line.startswith(' "')]


async def test_the_baselines_stand_alone_when_it_is_selected() -> None:
    app = live(FakeSession())
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, app)
        await pilot.press("up")
        await settle(pilot)
        assert "next token at step 0 " in panel_text(app, "#candidates")
        assert "does not drift" in panel_text(app, "#drift")


async def test_decoding_begins_with_a_token_forced_there() -> None:
    session = FakeSession()
    app = live(session)
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot, app)
        await settle(pilot)
        lines = panel_text(app, "#candidates").splitlines()
        row = next(row for row, line in enumerate(lines) if line.startswith(' "')) + 2
        await pilot.click("#candidates", offset=(3, row))
        await until(pilot, lambda: isinstance(app.screen, ForceDialog))
        options = app.screen.query_one(OptionList)
        assert options.highlighted == 2
        shown = str(options.get_option_at_index(2).prompt)
        await pilot.press("enter")
        await until(pilot, lambda: session.forced)
        ((at, tokens),) = session.forced
        candidates = make_step(0).candidates
        text = candidates.texts[candidates.tokens.index(tokens[1])]
        assert (at, [*tokens]) == (0, [1])
        assert lines[row].startswith(f" {quoted(text)} ")
        assert shown.startswith(f"{quoted(text)} ")
        assert len(session.trace.branches) == 1


async def test_a_replay_without_a_step_has_nothing_to_show() -> None:
    app = replay(make_trace(0))
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        first, *others = panel_text(app, "#candidates").splitlines()
        assert first.startswith("next token ─")
        assert not "".join(others).strip()


async def test_the_tree_says_that_its_root_was_forced() -> None:
    trace = make_trace(3)
    first = trace.steps[0]
    token = first.lanes[1]
    assert token is not None
    lanes = [first.lanes[0], replace(token, forced=True), first.lanes[2]]
    trace.steps[0] = replace(first, lanes=lanes)
    app = replay(trace)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, BranchesDialog))
        (line,) = [str(option.prompt) for option in app.screen.query_one(OptionList).options]
        assert line == '● step 0: drop:attn=1 " word0", 3 steps'
