"""Variant editor: gates, numbers, text, lanes, and what goes wrong."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.trace.records import Lane
from prunetui.engine.trace.trace import Trace
from prunetui.engine.variants.pruning.ranking import Similarity, known_drops
from prunetui.engine.variants.recipe_edits import with_drops
from prunetui.engine.variants.recipes import Checkpoint, Drop, Recipe, parse
from prunetui.tui.app import InspectorApp
from prunetui.tui.screens.ask import AskDialog, ConfirmDialog
from prunetui.tui.screens.variants import VariantEditor
from prunetui.tui.widgets.lane_list import LaneList
from prunetui.tui.widgets.model_map import LABEL_CELLS, SHADES, ModelMap, limits
from prunetui.tui.widgets.panel import Panel
from textual.pilot import Pilot
from textual.widgets import Input, Label

from ..support.fake_session import FakeSession
from ..support.screens import (
    REPLAY_REFUSAL,
    inspector,
    live,
    notices,
    ready,
    replay,
    screen_lines,
    until,
)
from ..support.traces import make_header

DEPTH = 30


def similarity(depth: int = DEPTH) -> Similarity:
    """Attention matters less with depth, MLP too but for the last; no two are alike."""
    attn = [1 - 0.4 * 0.85**layer for layer in range(depth)]
    mlp = [1 - 0.5 * 0.9**layer for layer in range(depth - 1)] + [0.3]
    blocks = [1 - (2 - a - m) for a, m in zip(attn, mlp, strict=True)]
    return Similarity(attn, mlp, [blocks])


class EditedSession(FakeSession):
    """Takes variants as a session does: lists are known, numbers close the first layers."""

    def __init__(self, depth: int = DEPTH, why: str = "") -> None:
        super().__init__()
        self.why = why
        self.refuses = ""
        self.asked: list[list[str]] = []
        self._begin(depth, ["drop:attn=4", "late=wanda:0.5+drop:mlp=8"])

    def importance(self) -> Similarity:
        self.work("ranking the sublayers")
        if self.why:
            raise UserError(self.why)
        return similarity(self.trace.header.model.layers)

    def set_variants(self, recipes: Sequence[str]) -> None:
        self.asked.append([*recipes])
        if self.refuses:
            raise UserError(self.refuses)
        self.work("applying wanda:0.5", 0.5)
        self._begin(self.trace.header.model.layers, recipes)

    def _begin(self, depth: int, recipes: Sequence[str]) -> None:
        header = make_header(layers=depth)
        lanes = [header.lanes[0]]
        for recipe in map(parse, recipes):
            drops = known_drops(recipe, similarity(depth)) or Dropped(mlp=frozenset({20, 21}))
            lanes.append(
                Lane(
                    name=recipe.name,
                    recipe=recipe.text,
                    dropped_attention=sorted(drops.attention),
                    dropped_mlp=sorted(drops.mlp),
                )
            )
        self.trace = Trace(msgspec.structs.replace(header, lanes=lanes))


async def opened(pilot: Pilot[None], app: InspectorApp) -> VariantEditor:
    await ready(pilot, app)
    await pilot.press("v")
    await until(pilot, lambda: isinstance(app.screen, VariantEditor))
    screen = app.screen
    assert isinstance(screen, VariantEditor)
    await until(pilot, lambda: "not measured" not in drawn(screen, ModelMap))
    return screen


def drawn(screen: VariantEditor, kind: type[Panel]) -> str:
    panel = screen.query_one(kind)
    return "\n".join(panel.render_line(y).text for y in range(panel.size.height))


def recipe(screen: VariantEditor) -> str:
    return screen.query_one("#recipe", Input).value


def said(screen: VariantEditor) -> str:
    return str(screen.query_one("#variants-problem", Label).content)


def closed(screen: VariantEditor) -> tuple[list[int], list[int]]:
    """The layers that are drawn with a cross, of attention and MLP; three lines a sublayer."""
    lines = drawn(screen, ModelMap).splitlines()
    cells = [lines[row][LABEL_CELLS:] for row in (3, 7)]
    attn, mlp = ([place // 2 for place, c in enumerate(row) if c == "✕"] for row in cells)
    return attn, mlp


async def ask(pilot: Pilot[None], app: InspectorApp, key: str, text: str) -> None:
    await pilot.press(key)
    await until(pilot, lambda: isinstance(app.screen, AskDialog))
    app.screen.query_one(Input).value = text
    await pilot.press("enter")
    await pilot.pause()


# -- gates ----------------------------------------------------------------------------------------


async def test_the_map_shows_what_is_closed_and_space_toggles_it() -> None:
    app = live(session := EditedSession())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        assert closed(screen) == ([26, 27, 28, 29], [])
        await pilot.press("right", "right", "space", "down", "space", "end", "up", "space")
        assert recipe(screen) == "drop:attn=[2,26,27,28]+drop:mlp=[2]"
        assert closed(screen) == ([2, 26, 27, 28], [2])
        await pilot.press("ctrl+r")
        await until(pilot, lambda: app.screen is inspector(app))
        assert session.asked == [
            ["drop:attn=[2,26,27,28]+drop:mlp=[2]", "late=wanda:0.5+drop:mlp=8"]
        ]
        assert inspector(app).trace is session.trace


async def test_a_click_toggles_a_gate() -> None:
    app = live(EditedSession())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        # Title, numbers, three lines of attention, a blank one, three of MLP.
        await pilot.click(ModelMap, offset=(LABEL_CELLS + 2 * 7 + 1, 2))
        await pilot.click(ModelMap, offset=(LABEL_CELLS + 2 * 29, 8))
        await pilot.click(ModelMap, offset=(LABEL_CELLS + 2 * 26, 4))
        assert closed(screen) == ([7, 27, 28, 29], [29])
        for nowhere in ((LABEL_CELLS - 1, 3), (LABEL_CELLS + 60, 3), (20, 5), (20, 9), (20, 1)):
            await pilot.click(ModelMap, offset=nowhere)
        assert closed(screen) == ([7, 27, 28, 29], [29])


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_each_sublayer_has_the_shade_of_its_importance(size: tuple[int, int]) -> None:
    app = live(EditedSession())
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("0", "a", "0", "m")
        lines = drawn(screen, ModelMap).splitlines()
        cells = 2 if size[0] == 80 else 3
        known = similarity()
        changes = sorted(1 - cosine for cosine in known.attention + known.mlp)
        bounds = [changes[12 * number] for number in range(5)]
        assert limits(known) == bounds
        for row, cosines in ((2, known.attention), (6, known.mlp)):
            glyphs = [lines[row][LABEL_CELLS + cells * layer] for layer in range(DEPTH)]
            expected = [SHADES[sum(1 - c >= b for b in bounds) - 1] for c in cosines]
            # The cursor is on the first attention.
            assert glyphs == ([" ", *expected[1:]] if row == 2 else expected)
        assert "attention 0: open · 1 − cos 0.4000, place 30 of 30 · layer 0.9000" in "".join(lines)


async def test_a_deep_model_scrolls() -> None:
    app = live(EditedSession(depth=80))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        assert "map, layers 0 to 34 of 80" in drawn(screen, ModelMap)
        await pilot.press("end", "space")
        assert "map, layers 45 to 79 of 80" in drawn(screen, ModelMap)
        assert recipe(screen) == "drop:attn=[76,77,78]"
        assert closed(screen)[0] == [31, 32, 33]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("8a", "drop:attn=[22,23,24,25,26,27,28,29]"),
        ("3m", "drop:attn=[26,27,28,29]+drop:mlp=[26,27,28]"),
        ("2b", "drop:attn=[27,28]+drop:mlp=[27,28]"),
        ("12j", "drop:attn=[18,19,20,21,22,23,24,25,26,27,28,29]"),
        ("0a", "control"),
        ("3m1m", "drop:attn=[26,27,28,29]+drop:mlp=[28]"),
    ],
)
async def test_a_number_closes_the_least_important(keys: str, expected: str) -> None:
    app = live(EditedSession())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(*keys)
        assert recipe(screen) == expected


async def test_a_number_is_shown_and_can_be_taken_back() -> None:
    app = live(EditedSession())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("1", "2", "backspace")
        assert "close the 1▏least important:" in drawn(screen, ModelMap)
        await pilot.press("escape")
        assert "close the" not in drawn(screen, ModelMap)
        await pilot.press("a")
        assert said(screen).startswith("Type a number first")
        await pilot.press("9", "9", "j")
        assert said(screen) == "There are 60 to close, and 99 are asked for."
        assert recipe(screen) == "drop:attn=4"


# -- text -----------------------------------------------------------------------------------------


async def test_text_is_read_while_it_is_typed() -> None:
    app = live(session := EditedSession())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        field = screen.query_one("#recipe", Input)
        field.focus()
        field.value = "drop:mlp=[3,5"
        await pilot.pause()
        assert "does not parse at ▸" in said(screen)
        await pilot.press("ctrl+r")
        assert app.screen is screen
        assert session.asked == []
        field.value = "mine=drop:mlp=[3,5]"
        await pilot.pause()
        assert closed(screen) == ([], [3, 5])
        await pilot.press("enter", "space", "ctrl+r")
        await until(pilot, lambda: session.asked)
        assert session.asked[0][0] == "mine=drop:attn=[0]+drop:mlp=[3,5]"


async def test_what_the_map_cannot_show_is_kept_as_text() -> None:
    app = live(EditedSession())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        screen.query_one(LaneList).focus()
        await pilot.press("down")
        assert closed(screen) == ([], [20, 21])
        assert "kept as text: wanda:0.5" in drawn(screen, ModelMap)
        await pilot.press("space")
        assert recipe(screen) == "wanda:0.5+drop:attn=[0]+drop:mlp=[20,21]"


async def test_what_only_a_model_can_tell_is_not_guessed() -> None:
    app = live(EditedSession())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        screen.query_one("#recipe", Input).value = "magnitude:0.5+drop:attn=2"
        await pilot.pause()
        assert "known when applied" in drawn(screen, LaneList)
        assert "attention 0: not known" in drawn(screen, ModelMap)
        await pilot.press("space")
        assert said(screen).startswith("What this closes is known once it is applied")
        screen.query_one("#recipe", Input).value = "some/checkpoint"
        await pilot.pause()
        await pilot.press("space")
        assert said(screen).startswith("What a checkpoint drops is its own")
        assert recipe(screen) == "some/checkpoint"


async def test_a_path_that_must_be_quoted_is_edited_as_it_is_applied(tmp_path: Path) -> None:
    """What the field shows is what it says, also of characters that have no glyph."""
    session = EditedSession()
    path = tmp_path / "a+b\n\u202e"
    path.mkdir()
    session.set_variants([str(path), "drop:attn=4"])
    session.asked.clear()
    app = live(session)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot, app)
        shown = recipe(screen)
        assert shown == f'"{tmp_path}/a+b\\n\\u202e"'
        field = screen.query_one("#recipe", Input)
        field.value = f"{shown}+drop:attn=[1]"
        await pilot.pause()
        assert recipe(screen) == f"{shown}+drop:attn=[1]"
        await pilot.press("ctrl+r")
        await until(pilot, lambda: bool(session.asked))
    (asked,) = session.asked
    assert parse(asked[0]) == Recipe((Checkpoint(str(path)), Drop("attn", layers=(1,))))


@pytest.mark.parametrize(
    ("before", "attention", "mlp", "after"),
    [
        ("drop:attn=4", {3, 1}, set(), "drop:attn=[1,3]"),
        ("a=drop:attn=4+wanda:0.5", {3}, {0}, "a=drop:attn=[3]+drop:mlp=[0]+wanda:0.5"),
        ("wanda:0.5+drop:mlp=4", {3}, set(), "wanda:0.5+drop:attn=[3]"),
        ("wanda:0.5", set(), {2}, "wanda:0.5+drop:mlp=[2]"),
        ("drop:attn=1+wanda:0.5+drop:mlp=1", {0}, {1}, "drop:attn=[0]+drop:mlp=[1]+wanda:0.5"),
        ("drop:block=2", set(), set(), "control"),
        ("control", {1}, set(), "drop:attn=[1]"),
    ],
)
def test_drops_in_a_recipe(before: str, attention: set, mlp: set, after: str) -> None:
    assert with_drops(parse(before), Dropped(frozenset(attention), frozenset(mlp))) == parse(after)


CHANGES = {
    "wanda:0.5": "50% of weights zero",
    "sparsegpt:2:4": "2:4 of weights zero",
    "magnitude:0.125+drop:attn=[3]": "1 attn closed, 12.5% of weights zero",
    "drop:mlp=8": "8 MLP closed",
    "drop:block=2": "2 attn, 2 MLP closed",
    "control": "nothing changed",
    "some/checkpoint": "known when applied",
}
"""What the list says of recipes that are not applied."""


@pytest.mark.parametrize("recipe", CHANGES)
async def test_the_list_says_what_a_recipe_changes(recipe: str) -> None:
    app = live(EditedSession())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        screen.query_one("#recipe", Input).value = recipe
        await pilot.pause()
        note = CHANGES[recipe]
        edited = "" if note == "known when applied" else "edited: "
        line = drawn(screen, LaneList).splitlines()[2]
        assert line.endswith(f"  {edited}{note}")


async def test_the_list_says_how_many_weights_of_an_applied_variant_are_zero() -> None:
    session = EditedSession()
    session.set_variants(["sparsegpt:2:4", "some/checkpoint+drop:attn=[1]"])
    header = session.trace.header
    lanes = [
        header.lanes[0],
        msgspec.structs.replace(header.lanes[1], sparsity=0.49996, pattern="2:4"),
        msgspec.structs.replace(header.lanes[2], sparsity=0.0, dropped_attention=[1]),
    ]
    session.trace = Trace(msgspec.structs.replace(header, lanes=lanes))
    app = live(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        lines = drawn(screen, LaneList).splitlines()
        assert lines[2].endswith(" 50.0% of weights zero (2:4)")
        assert lines[3].endswith(" 1 attn, 2 MLP closed, 0.0% of weights zero")


# -- lanes ----------------------------------------------------------------------------------------


async def test_lanes_are_added_renamed_moved_and_removed() -> None:
    app = live(session := EditedSession())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        await ask(pilot, app, "n", "drop:mlp=[1]")
        assert drawn(screen, LaneList).splitlines()[3].startswith("▸ 2   drop:mlp=[1]")
        await ask(pilot, app, "r", "no name")
        problem = app.screen.query_one(".dialog-problem", Label)
        assert "does not parse" in str(problem.content)
        app.screen.query_one(Input).value = "one"
        await pilot.press("enter", "shift+down", "shift+down")
        assert drawn(screen, LaneList).splitlines()[4].startswith("▸ 3   one")
        await pilot.press("shift+up", "shift+up", "shift+up")
        assert drawn(screen, LaneList).splitlines()[2].startswith("▸ 1   one")
        await pilot.click(LaneList, offset=(10, 3))
        await pilot.press("d", "ctrl+r")
        await until(pilot, lambda: session.asked)
        assert session.asked == [["one=drop:mlp=[1]", "late=wanda:0.5+drop:mlp=8"]]


async def test_the_baseline_stays_and_a_name_can_be_taken_back() -> None:
    app = live(session := EditedSession())
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, app)
        await pilot.press("up")
        screen = await opened(pilot, app)
        for key in ("d", "space", "shift+down", "r", "8", "a"):
            await pilot.press(key)
        assert said(screen) == "The baseline is the model as it is; n adds a variant."
        assert screen.query_one("#recipe", Input).disabled
        screen.query_one(LaneList).focus()
        await pilot.press("down", "down")
        await ask(pilot, app, "r", "")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: session.asked)
        assert session.asked == [["drop:attn=4", "wanda:0.5+drop:mlp=8"]]


async def test_fewer_lanes_leave_none_selected_that_is_gone() -> None:
    app = live(session := EditedSession())
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("escape", "down", "b")
        await until(pilot, lambda: isinstance(app.screen, AskDialog))
        app.screen.query_one(Input).value = "lane 2 kl > 5"
        await pilot.press("enter")
        assert inspector(app).lane == 2
        await opened(pilot, app)
        await pilot.press("d", "d", "ctrl+r")
        await until(pilot, lambda: len(session.trace.header.lanes) == 1)
        await until(pilot, lambda: inspector(app).lane == 0)
        assert inspector(app).seeking.breakpoint is None
        assert notices(app) == ["No breakpoint any more: there is no lane 2; lanes are 0 to 0."]
        await pilot.press("right", "right", "n", "x")
        await until(pilot, lambda: len(session.trace.steps) > 1)


async def test_nothing_changed_is_nothing_decoded() -> None:
    app = live(session := EditedSession())
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, app)
        await pilot.press("space", "space", "enter")
        await until(pilot, lambda: app.screen is inspector(app))
        # The gates are the same, but lists now say so.
        assert session.asked == [["drop:attn=[26,27,28,29]", "late=wanda:0.5+drop:mlp=8"]]
        await opened(pilot, app)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is inspector(app))
        assert len(session.asked) == 1


# -- taking back ----------------------------------------------------------------------------------


async def test_edits_are_undone_one_by_one() -> None:
    app = live(EditedSession())
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("space", "2", "m")
        await ask(pilot, app, "n", "drop:mlp=[1]")
        await pilot.press("shift+down", "d")
        states = ["wanda:0.5+drop:mlp=8", "drop:mlp=[1]", "drop:mlp=[1]"]
        with_gate = "drop:attn=[0,26,27,28,29]"
        states += [f"{with_gate}+drop:mlp=[27,28]", with_gate, "drop:attn=4"]
        seen = [recipe(screen)]
        for _ in range(5):
            await pilot.press("ctrl+z")
            seen.append(recipe(screen))
        assert seen == states
        await pilot.press("ctrl+z")
        assert said(screen) == "There is nothing to undo."
        assert notices(app) == []
        await pilot.press("escape")
        assert app.screen is inspector(app)


async def test_a_run_of_typing_is_one_edit_and_text_that_does_not_parse_is_not_lost() -> None:
    app = live(EditedSession())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        screen.query_one("#recipe", Input).focus()
        await pilot.press("ctrl+a", *"drop:mlp=[3")
        assert "does not parse at" in said(screen)
        screen.query_one(LaneList).focus()
        await pilot.press("down")
        assert recipe(screen) == "wanda:0.5+drop:mlp=8"
        await pilot.press("ctrl+z")
        assert recipe(screen) == "drop:mlp=[3"
        assert "does not parse at" in said(screen)
        await pilot.press("ctrl+z")
        assert recipe(screen) == "drop:attn=4"
        assert not said(screen).startswith("Recipe")


@pytest.mark.parametrize("edit", ["gate", "text"])
async def test_leaving_with_edits_asks(edit: str) -> None:
    app = live(session := EditedSession())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        if edit == "text":
            screen.query_one("#recipe", Input).focus()
        await pilot.press("space" if edit == "gate" else "+", "escape")
        edited = recipe(screen)
        for key in ("escape", "n", "enter"):
            assert isinstance(app.screen, ConfirmDialog)
            await pilot.press(key)
            assert app.screen is screen
            assert recipe(screen) == edited
            await pilot.press("escape")
        await pilot.press("y")
        assert app.screen is inspector(app)
        assert session.asked == []


async def test_esc_cancels_what_is_being_applied_and_the_edits_stay() -> None:
    app = live(session := EditedSession())
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await opened(pilot, app)
        trace = session.trace
        session.released.clear()
        await pilot.press("space", "ctrl+r")
        await until(pilot, lambda: said(screen).startswith("… applying wanda:0.5 50% · "))
        assert said(screen).endswith("· esc cancels")
        await pilot.press("escape")
        sentence = "Cancelled: the lanes are as they were, and your edits are still here."
        await until(pilot, lambda: said(screen) == sentence)
        assert not screen.query_one("#variants-problem").has_class("problem")
        assert recipe(screen) == "drop:attn=[0,26,27,28,29]"
        assert session.trace is inspector(app).trace is trace
        session.released.set()
        await pilot.press("ctrl+r")
        await until(pilot, lambda: app.screen is inspector(app))
        assert inspector(app).trace is session.trace is not trace
        assert notices(app) == []


async def test_what_waits_behind_a_measurement_is_cancelled_with_it() -> None:
    app = live(session := EditedSession())
    session.released.clear()
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, app)
        await pilot.press("v")
        await until(pilot, lambda: isinstance(app.screen, VariantEditor))
        screen = app.screen
        assert isinstance(screen, VariantEditor)
        await until(pilot, lambda: "ranking the sublayers 25%" in drawn(screen, ModelMap))
        await pilot.press("space", "ctrl+r")
        await pilot.press("escape")
        await until(pilot, lambda: said(screen).startswith("Cancelled:"))
        session.released.set()
        await pilot.press("2", "m")
        assert said(screen) == "What matters least is not measured: leave and come back to measure."
        await pilot.press("ctrl+z")
        await until(pilot, lambda: recipe(screen) == "drop:attn=4")
        await pilot.press("escape")
        await opened(pilot, app)
        assert session.asked == []


# -- what goes wrong ------------------------------------------------------------------------------


async def test_a_recipe_that_does_not_apply_can_be_edited_on() -> None:
    session = EditedSession()
    session.refuses = "recipe drop:attn=40: drops 40"
    app = live(session)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await opened(pilot, app)
        trace = session.trace
        await pilot.press("space", "ctrl+r")
        await until(pilot, lambda: said(screen) == "recipe drop:attn=40: drops 40")
        assert app.screen is screen
        assert recipe(screen) == "drop:attn=[0,26,27,28,29]"
        assert inspector(app).trace is trace
        session.refuses = ""
        await pilot.press("ctrl+r")
        await until(pilot, lambda: app.screen is inspector(app))
        assert notices(app) == []


async def test_a_family_that_takes_no_dropping_has_its_text() -> None:
    app = live(session := EditedSession(why="this opt model does not take layer dropping"))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        why = "There is no map: this opt model does not take layer dropping."
        await until(pilot, lambda: why in drawn(screen, ModelMap))
        await pilot.press("space")
        assert said(screen) == "Only the text can be edited."
        screen.query_one("#recipe", Input).value = "magnitude:0.5"
        await pilot.pause()
        await pilot.press("ctrl+r")
        await until(pilot, lambda: session.asked)
        assert session.asked[0][0] == "magnitude:0.5"


async def test_a_replay_has_no_model_to_edit() -> None:
    app = replay()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.press("v")
        assert app.screen is inspector(app)
        assert notices(app) == [REPLAY_REFUSAL]


async def test_hostile_text_stays_text() -> None:
    app = live(EditedSession())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        await ask(pilot, app, "n", "a/\x1b[31m\u202e[/foo]")
        lines = "\n".join(screen_lines(screen))
        assert "\x1b" not in lines
        assert "\u202e" not in lines
        assert "[/foo]" in lines


# -- whole screens --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "theme"),
    [((80, 24), "dark"), ((80, 24), "mono"), ((120, 40), "dark")],
    ids=["80x24-dark", "80x24-mono", "120x40-dark"],
)
def test_the_editor(snap_compare, size: tuple[int, int], theme: str) -> None:
    async def edit(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, InspectorApp)
        app.theme = theme
        screen = await opened(pilot, app)
        await pilot.press(*["right"] * 5, "space", "down", "right", "8")
        await until(pilot, lambda: "close the 8" in drawn(screen, ModelMap))
        await pilot.pause()

    assert snap_compare(live(EditedSession()), terminal_size=size, run_before=edit)
