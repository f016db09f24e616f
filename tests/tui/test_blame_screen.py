"""Blame screen: parts, text and depth; keys, measuring, and lanes made of a part given back."""

from collections.abc import Sequence

import msgspec
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.trace.blame import Blame, BlamedTokens, Causes
from prunetui.engine.trace.records import Lane
from prunetui.engine.trace.trace import Trace
from prunetui.engine.variants.recipes import parse
from prunetui.tui.app import InspectorApp
from prunetui.tui.screens.blame import BlameScreen
from prunetui.tui.screens.help import HelpScreen
from prunetui.tui.widgets.blame_map import ABOVE, BELOW, LABEL_CELLS, BlameMap
from prunetui.tui.widgets.panel import SELECTED, Panel
from textual.pilot import Pilot

from ..support.blames import attention, make_blame, mlp, next_token
from ..support.demo_blames import NATALIA, blame_of_parts, demo_trace, wanda_trace
from ..support.fake_session import FakeSession
from ..support.screens import (
    both_sizes,
    inspector,
    live,
    notices,
    panel_text,
    ready,
    replay,
    screen_lines,
    settle,
    until,
)
from ..support.traces import HOSTILE, make_header, make_step, make_trace

RESUME = "prunetui --resume some.trace.jsonl loads"


class BlamedSession(FakeSession):
    """Takes variants, and remembers what it is asked for."""

    def __init__(self) -> None:
        super().__init__(most=8)
        self.blamed: list[tuple[int, int, BlamedTokens, Causes]] = []
        self.asked: list[list[str]] = []
        self.refuses = ""

    def blame(self, number: int, lane: int, tokens: BlamedTokens, what: Causes) -> None:
        self.blamed.append((number, lane, tokens, what))
        if self.refuses:
            raise UserError(self.refuses)
        super().blame(number, lane, tokens, what)

    def step(self, *, ahead: bool = False) -> None:  # noqa: ARG002
        self.closed.wait(0.001)
        variants = len(self.trace.header.lanes) - 1
        self.trace.append(make_step(len(self.trace.steps), variants))

    def set_variants(self, recipes: Sequence[str]) -> None:
        self.asked.append([*recipes])
        if self.refuses:
            raise UserError(self.refuses)
        self.work("applying", 0.5)
        lanes = [make_header().lanes[0]]
        for recipe in map(parse, recipes):
            lanes.append(
                Lane(name=recipe.name, recipe=recipe.text, dropped_attention=[], dropped_mlp=[])
            )
        self.trace = Trace(msgspec.structs.replace(make_header(), lanes=lanes))


def text(app: InspectorApp) -> str:
    return "\n".join(screen_lines(app.screen))


def drawn(app: InspectorApp, kind: type[Panel]) -> list[str]:
    panel = app.screen.query_one(kind)
    return [panel.render_line(y).text for y in range(panel.size.height)]


def chosen(app: InspectorApp) -> str:
    """Name of the part that the list marks."""
    line = next(line for line in screen_lines(app.screen) if line.startswith(f" {SELECTED} "))
    return " ".join(line.split()[1:3])


async def replayed(pilot: Pilot[None], app: InspectorApp, lane: int, step: int, *keys: str) -> None:
    """Open the blame screen of a replay and press keys."""
    await settle(pilot)
    inspector(app).select(lane)
    inspector(app).move_to(step)
    await pilot.press("w")
    await until(pilot, lambda: isinstance(app.screen, BlameScreen))
    await pilot.press(*keys)
    await pilot.pause()


async def measured(pilot: Pilot[None], app: InspectorApp, steps: int = 6) -> None:
    """Decode so many steps, and open the blame screen at the last of them."""
    screen = await ready(pilot, app)
    for number in range(steps):
        await pilot.press("right")
        await until(pilot, lambda n=number: screen.trace and len(screen.trace.steps) > n)
    await pilot.press("w")
    await until(pilot, lambda: isinstance(app.screen, BlameScreen))


# -- a recorded blame -----------------------------------------------------------------------------


async def test_the_answer_is_there_without_scrolling() -> None:
    app = replay(demo_trace())
    async with app.run_test(size=(80, 24)) as pilot:
        await replayed(pilot, app, 2, 7)
        lines = [line.strip() for line in screen_lines(app.screen)]
        shown = " ".join(lines)
        assert "step 7: why drop:attn=8 leaves the baseline" in shown
        assert "on the baseline's tokens" in shown
        assert "KL(p‖q) 3.42 nats   baseline “ clips”   lane “ friends”" in shown
        assert "Attention 25 by itself makes KL(p‖q) 3.10 nats" in shown
        assert "attention 25 gives back 3.10 of 3.42 nats" in shown
        # By importance: what the lane has less of, what is left, the gap's gain, and alone.
        rows = [line.split() for line in lines if "≠ “ friends”" in line]
        first, second = rows[:2]
        assert first[:6] == [SELECTED, "attention", "25", "3.10", "0.318", "+2.75"]
        assert second[:5] == ["attention", "9", "0.599", "2.82", "+0.60"]
        assert "⏎ gives attention 25 back and decodes on: drop:attn=8+restore:attn=[25]" in lines


async def test_a_token_that_no_part_turned_is_explained() -> None:
    blame = blame_of_parts([attention(5), attention(25)], attention(25), 2)
    app = replay(demo_trace(msgspec.structs.replace(blame, pruned=blame.baseline)))
    async with app.run_test(size=(80, 24)) as pilot:
        await replayed(pilot, app, 2, 7)
        shown = " ".join(text(app).split())
        assert "was chosen after its own text, which is another from step 0 on: blame" in shown


async def test_arrows_select_by_importance_and_along_the_model() -> None:
    app = replay(demo_trace())
    async with app.run_test(size=(80, 24)) as pilot:
        await replayed(pilot, app, 2, 7)
        assert chosen(app) == "attention 25"
        for key, part in [
            ("down", "attention 9"),
            ("up", "attention 25"),
            ("up", "attention 25"),
            ("left", "attention 9"),
            ("left", "attention 7"),
            ("right", "attention 9"),
            ("right", "attention 25"),
            ("right", "attention 26"),
        ]:
            await pilot.press(key)
            assert chosen(app) == part
            assert f"decodes on: drop:attn=8+restore:attn=[{part.split()[1]}]" in text(app)
            marked = drawn(app, BlameMap)
            row = next(line for line in marked if ABOVE in line)
            # Two cells a layer.
            assert row.index(ABOVE) == LABEL_CELLS + 2 * int(part.split()[1])


async def test_bars_are_as_high_as_what_is_given_back_and_unpruned_parts_have_none() -> None:
    parts = [attention(3), mlp(3), mlp(4)]
    app = replay(demo_trace(blame_of_parts(parts, mlp(3), 2)))
    async with app.run_test(size=(80, 24)) as pilot:
        await replayed(pilot, app, 2, 7)
        lines = drawn(app, BlameMap)
        columns = {at: "".join(line[LABEL_CELLS + 2 * at] for line in lines) for at in range(6)}
        # Numbers, three lines of attention, the mark, two of MLP.
        blame = app.screen.query_one(BlameMap).content
        given = {part: effect.kl_reduction for part, effect in blame.parts.items() if effect}
        full, less = given[mlp(3)] or 0.0, given[attention(3)] or 0.0
        assert full == pytest.approx(3.42 - 0.318)
        assert columns[3][5:7] == "██"
        assert columns[3][4] == BELOW
        assert columns[3][1:4] == "  " + "▁▁▂▃▄▅▆▇█"[round(less / full * 3 * 8)]
        assert [columns[at].count("·") for at in (1, 2, 3, 4)] == [2, 2, 0, 1]


async def test_pages_by_tab_and_by_number_and_esc_leaves() -> None:
    app = replay(demo_trace())
    async with app.run_test(size=(80, 24)) as pilot:
        await replayed(pilot, app, 2, 7, "tab")
        assert "[2 in the text]" in text(app)
        assert "the caches from position 71 on" in text(app)
        # The mark stands before the first token whose cache must be the baseline's.
        assert "Natal»ia sold" in text(app)
        await pilot.press("tab")
        await pilot.pause()
        assert "[3 in depth]" in text(app)
        assert "after attention 25: all positions ── 0.0492   last position ••• 0.0820" in text(app)
        await pilot.press("left")
        assert "after attention 9: all positions ── 3.04" in text(app)
        await pilot.press("tab")
        assert "[1 parts]" in text(app)
        await pilot.press("3", "1", "2")
        await pilot.pause()
        assert "[2 in the text]" in text(app)
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("escape", "escape")
        assert app.screen is inspector(app)


async def test_a_replay_measures_nothing_and_says_what_does() -> None:
    blame = msgspec.structs.replace(
        blame_of_parts([attention(5), attention(25)], attention(25), 2), in_text=None
    )
    app = replay(demo_trace(blame))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await replayed(pilot, app, 2, 7, "2")
        assert "Where in the text it begins is not recorded" in text(app)
        assert RESUME in " ".join(text(app).split())
        await pilot.press("enter")
        assert "This is a replay: there is no model to decode with" in text(app)
        # Up to step 7 the lanes' texts are not the same.
        await pilot.press("1", "b")
        assert "Which parts are to blame is not recorded" in text(app)
        assert "on the lane's tokens" in text(app)
        await pilot.press("enter")
        assert "Nothing is measured yet" in text(app)
        await pilot.press("b")
        assert "Attention 25 by itself" in text(app)
        await pilot.press("escape")
        inspector(app).move_to(8)
        await pilot.press("w")
        assert notices(app) == [
            "No blame of drop:attn=8 is recorded at step 8: prunetui --resume some.trace.jsonl "
            "loads the model, and w measures one."
        ]
        assert app.screen is inspector(app)


async def test_there_is_nothing_to_blame_of_the_baseline_or_before_a_step() -> None:
    app = live(FakeSession())
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await ready(pilot, app)
        await pilot.press("w")
        assert notices(app) == ["There is no step to explain yet: → takes one."]
        await pilot.press("up", "w")
        assert notices(app) == [
            "The baseline is not pruned, so there is nothing to blame: ↓ selects a lane."
        ]
        assert app.screen is inspector(app)


@pytest.mark.parametrize(
    ("size", "layers"), [((80, 24), 256), pytest.param((120, 40), 30, marks=pytest.mark.slow)]
)
async def test_many_parts_and_layers_fit(size: tuple[int, int], layers: int) -> None:
    app = replay(wanda_trace(layers, outside=True))
    async with app.run_test(size=size) as pilot:
        await replayed(pilot, app, 1, 6)
        for _ in range(3):
            await pilot.press("left")
        assert chosen(app) == f"MLP {layers - 7}"
        assert BELOW in "".join(drawn(app, BlameMap))
        marked = next(line for line in drawn(app, BlameMap) if BELOW in line)
        numbers = drawn(app, BlameMap)[0]
        at = numbers.index(str(layers - 11 - (layers - 11) % 5))
        cells = (numbers.index(str(layers - 6 - (layers - 6) % 5)) - at) // 5
        column = at + cells * (layers - 7 - (layers - 11 - (layers - 11) % 5))
        assert column <= marked.index(BELOW) < column + cells
        await pilot.press(*["down"] * 8)
        assert SELECTED in text(app)
        other = next(line for line in drawn(app, BlameMap) if line.startswith("other"))
        assert "embeddings, final norm, head" in other


async def test_hostile_tokens_are_drawn_as_glyphs() -> None:
    blame = make_blame()
    evil = msgspec.structs.replace(next_token(3.5, 3), text="\x1b]52;c;aGk=\x07\u202e[b]漢\n")
    parts = [msgspec.structs.replace(part, given_back=evil) for part in blame.parts]
    trace = make_trace(8)
    trace.add_blame(6, msgspec.structs.replace(blame, pruned=evil, parts=parts))
    app = replay(trace)
    async with app.run_test(size=(120, 40)) as pilot:
        await replayed(pilot, app, 1, 6)
        shown = ""
        for page in "321":
            await pilot.press(page)
            await pilot.pause()
            shown = text(app)
            assert not any(c in shown for c in ("\x1b", "\x07", "\u202e"))
            assert all(len(line) <= 120 for line in shown.splitlines())
        assert "␛]52;c;aGk=␇" in shown
        assert HOSTILE[3] == "\x1b]52;c;aGk=\x07"


# -- measuring ------------------------------------------------------------------------------------


async def test_what_a_page_shows_is_measured_once_and_whose_tokens_can_be_chosen() -> None:
    session = BlamedSession()
    app = live(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await measured(pilot, app)
        await until(pilot, lambda: "Attention 1 by itself" in text(app))
        await pilot.press("2")
        await until(pilot, lambda: "In the text:" in text(app))
        await pilot.press("3")
        await until(pilot, lambda: "In depth," in text(app))
        await pilot.press("1", "2", "tab", "tab")
        # The lane left the baseline at step 4.
        await pilot.press("b")
        await until(pilot, lambda: "Attention 1 by itself" in text(app))
        assert "on the lane's tokens" in text(app)
        assert session.blamed == [
            (5, 1, "baseline", "parts"),
            (5, 1, "baseline", "text"),
            (5, 1, "baseline", "depth"),
            (5, 1, "lane", "parts"),
        ]


async def test_tokens_that_both_have_read_are_not_measured_twice() -> None:
    session = BlamedSession()
    app = live(session)
    async with app.run_test(size=(80, 24)) as pilot:
        # At step 4 the lane's token differs first, after the same text.
        await measured(pilot, app, steps=5)
        await until(pilot, lambda: "Attention 1 by itself" in text(app))
        assert "both read the same tokens" in text(app)
        await pilot.press("b")
        assert "Both have read the same tokens before this step." in text(app)
        assert len(session.blamed) == 1


async def test_measuring_shows_how_far_it_is_and_esc_cancels_it() -> None:
    session = BlamedSession()
    session.released.clear()
    app = live(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await measured(pilot, app)
        await until(pilot, lambda: "… reading 12 forms of 8 tokens 25%" in text(app))
        assert "esc cancels" in text(app)
        # Pruned parts are known from the header.
        assert "░" in "".join(drawn(app, BlameMap))
        await pilot.press("escape")
        await until(pilot, lambda: "Cancelled: 1 measures which parts are to blame." in text(app))
        session.released.set()
        await pilot.press("1")
        await until(pilot, lambda: "Attention 1 by itself" in text(app))
        session.released.clear()
        await pilot.press("2")
        await until(pilot, lambda: "25%" in text(app))
        await pilot.press("escape")
        await until(pilot, lambda: "Cancelled: 2 measures where in the text" in text(app))
        await pilot.press("1")
        assert "Attention 1 by itself" in text(app)
        await pilot.press("escape")
        assert app.screen is inspector(app)
        session.released.set()


async def test_what_is_refused_is_said_on_the_screen() -> None:
    session = BlamedSession()
    session.refuses = "drop:attn=1 prunes nothing, so there is nothing to blame"
    app = live(session)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await measured(pilot, app)
        await until(pilot, lambda: f"{session.refuses}." in text(app))
        assert notices(app) == []
        await pilot.press("left", "down", "escape")
        assert app.screen is inspector(app)


# -- a lane of a part given back ------------------------------------------------------------------


async def test_a_part_given_back_becomes_a_lane_that_decodes_on() -> None:
    session = BlamedSession()
    app = live(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await measured(pilot, app)
        await until(pilot, lambda: "Attention 1 by itself" in text(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is inspector(app))
        assert session.asked == [["drop:attn=1", "drop:attn=1+restore:attn=[1]", "drop:mlp=1"]]
        screen = inspector(app)
        assert screen.trace is session.trace
        assert screen.lane == 2
        await until(pilot, lambda: len(session.trace.steps) == 8)
        await settle(pilot)
        assert "▸ drop:attn=1+restore" in panel_text(app, "#text")
        # The same again, of the same lane: it is there.
        await pilot.press("up")
        screen.move_to(5)
        await pilot.press("w")
        await until(pilot, lambda: "Attention 1 by itself" in text(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is screen)
        assert screen.lane == 2
        assert len(session.asked) == 1


async def test_a_lane_that_is_refused_or_cancelled_leaves_the_screen() -> None:
    session = BlamedSession()
    app = live(session)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await measured(pilot, app)
        await until(pilot, lambda: "Attention 1 by itself" in text(app))
        trace, session.refuses = session.trace, "out of memory with these variants"
        await pilot.press("enter")
        await until(pilot, lambda: session.refuses in text(app))
        session.refuses = ""
        session.released.clear()
        await pilot.press("down", "enter")
        await until(pilot, lambda: "… applying 50%" in text(app))
        await pilot.press("escape")
        await until(pilot, lambda: "Cancelled: the lanes are as they were." in text(app))
        session.released.set()
        assert notices(app) == []
        assert session.trace is trace
        await pilot.press("escape")
        assert app.screen is inspector(app)
        assert len(trace.steps) == 6


@pytest.mark.parametrize("key", ["w", "q"])
async def test_the_same_key_and_q_lead_back(key: str) -> None:
    app = replay(demo_trace())
    async with app.run_test() as pilot:
        await replayed(pilot, app, 2, 7, key)
        assert app.screen is inspector(app)


# -- snapshots ------------------------------------------------------------------------------------


@both_sizes
@pytest.mark.parametrize("page", ["1", "2", "3"], ids=["parts", "text", "depth"])
def test_the_blame_screen(snap_compare, size, page) -> None:
    async def open_page(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, InspectorApp)
        await replayed(pilot, app, 2, 7, page)

    assert snap_compare(replay(demo_trace()), terminal_size=size, run_before=open_page)


def test_readme_blame(snap_compare) -> None:
    """The blame that the README tells of, as the demo was blamed."""
    recorded = (NATALIA.parent / "natalia_blame.json").read_bytes()
    trace = demo_trace(msgspec.json.decode(recorded, type=Blame), step=0)

    async def open_parts(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, InspectorApp)
        await replayed(pilot, app, 2, 0, "1")

    assert snap_compare(replay(trace), terminal_size=(120, 26), run_before=open_parts)
