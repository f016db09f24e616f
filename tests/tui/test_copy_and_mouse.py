"""Copying, clicking, and help in a view with keys of its own."""

import os
from pathlib import Path

import pytest
from prunetui.engine.trace.file import read_trace
from prunetui.tui.app import PrunetuiApp
from prunetui.tui.screens.choose import ForceDialog
from prunetui.tui.screens.inspector import OVERVIEW, Inspector
from prunetui.tui.views.alignment import NAME_CELLS
from prunetui.tui.views.catalog import VIEWS
from prunetui.tui.widgets import chart
from prunetui.tui.widgets.candidates import CandidatesPanel
from prunetui.tui.widgets.drift_panel import SCALE_CELLS
from prunetui.tui.widgets.key_line import KeyLine
from prunetui.tui.widgets.text_panel import TextPanel
from textual import events
from textual.pilot import Pilot
from textual.widgets import OptionList

from ..support.fake_session import FakeSession
from ..support.screens import inspector, live, notices, panel_text, replay, settle, until
from ..support.traces import make_trace

COPIED = "prunetui/copied.txt"


async def test_the_lanes_text_up_to_the_cursor_is_copied_and_kept() -> None:
    app = replay(make_trace(20))
    async with app.run_test(notifications=True) as pilot:
        inspector(app).move_to(8)
        await pilot.press("up", "y")
        await until(pilot, lambda: notices(app))
        text = " word0 word1 word2 word3[INST][/foo]␛[31mred␛]52;c;aGk=␇\n\n"
        assert app.clipboard == text
        file = Path(os.environ["XDG_STATE_HOME"]) / COPIED
        assert file.read_text("utf-8") == text
        assert notices(app) == [f"Copied baseline up to step 8; it is also in {file}"]


async def test_a_copy_that_cannot_be_kept_is_still_copied() -> None:
    Path(os.environ["XDG_STATE_HOME"]).write_text("a file where the directory should be")
    app = PrunetuiApp.replay(make_trace(20), Path("some.trace.jsonl"))
    async with app.run_test(notifications=True) as pilot:
        await pilot.press("home", "y")
        await until(pilot, lambda: any("Copied" in sentence for sentence in notices(app)))
        assert app.clipboard == " word0"
        assert notices(app)[-1].endswith("copied.txt: Not a directory")


@pytest.mark.parametrize(("steps", "bucket"), [(10, 1), (40, 4)])
async def test_a_click_in_the_charts_moves_the_cursor(steps: int, bucket: int) -> None:
    app = replay(make_trace(steps))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.click("#drift", offset=(SCALE_CELLS + 7, 2))
        assert inspector(app).cursor == 7 * bucket
        for nowhere in ((SCALE_CELLS + 5, 0), (SCALE_CELLS - 1, 2), (38, 2)):
            await pilot.click("#drift", offset=nowhere)
            assert inspector(app).cursor == 7 * bucket


@pytest.mark.parametrize("height", [38, 40])
async def test_a_click_in_the_texts_chooses_step_and_lane(height: int) -> None:
    app = replay(make_trace(20))
    async with app.run_test(size=(120, height)) as pilot:
        await settle(pilot)
        panel = inspector(app).query_one(TextPanel)
        lines = [panel.render_line(y).text for y in range(panel.size.height)]
        for lane, name in ((2, "drop:mlp=1"), (0, "baseline")):
            row = next(y for y, line in enumerate(lines) if f" {name}" in line)
            await pilot.click(panel, offset=(lines[row].index("word1"), row))
            assert (inspector(app).lane, inspector(app).cursor) == (lane, 1)


async def wheel(pilot: Pilot[None], selector: str, *, down: bool) -> None:
    turn = events.MouseScrollDown if down else events.MouseScrollUp
    await pilot._post_mouse_events([turn], selector, button=0)


@pytest.mark.parametrize(
    ("view", "selector"),
    [
        ("0", "#text"),
        ("0", "#drift"),
        ("0", "#candidates"),
        ("1", "#chart-h"),
        ("2", "#layers-map"),
        ("3", "#theory-h"),
        ("5", "#alignment-tokens"),
    ],
)
async def test_the_wheel_moves_the_cursor_a_step(view: str, selector: str) -> None:
    app = replay(make_trace(20))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press(view)
        await settle(pilot)
        for down, cursor in ((False, 18), (False, 17), (True, 18), (True, 19), (True, 19)):
            await wheel(pilot, selector, down=down)
            assert inspector(app).cursor == cursor


async def test_the_wheel_decodes_nothing() -> None:
    session = FakeSession()
    session.step()
    app = live(session)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, Inspector) and app.screen.trace)
        await settle(pilot)
        await wheel(pilot, "#text", down=True)
        await settle(pilot)
        assert len(session.trace.steps) == 1


async def test_through_the_lens_the_wheel_leaves_the_cursor() -> None:
    app = replay(make_trace(20))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("l")
        await settle(pilot)
        await wheel(pilot, "#layers-lens", down=False)
        assert inspector(app).cursor == 19


@pytest.mark.parametrize(
    ("keys", "selector", "places"),
    [
        # 20 steps on the columns behind the labels: the first, the last, the middle.
        ("1", "#chart-kl", [(chart.LABEL_CELLS, 0), (-1, 19), (32, 10)]),
        ("3m", "#theory-h", [(chart.LABEL_CELLS, 0), (-1, 19)]),
        ("2", "#layers-map", [(9, 0), (12, 3), (28, 19), (29, 19)]),
    ],
)
async def test_a_click_on_a_column_goes_to_its_step(
    keys: str, selector: str, places: list[tuple[int, int]]
) -> None:
    app = replay(make_trace(20))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press(*keys)
        await settle(pilot)
        for column, step in places:
            widget = app.screen.query_one(selector)
            await pilot.click(widget, offset=(column % widget.size.width, 3))
            await settle(pilot)
            assert inspector(app).cursor == step
        for nowhere in ((0, 3), (30, 0)):
            await pilot.click(selector, offset=nowhere)
            assert inspector(app).cursor == places[-1][1]


async def test_a_click_among_the_tokens_chooses_step_and_lane() -> None:
    app = replay(make_trace(20))
    async with app.run_test(size=(120, 40)) as pilot:
        screen = inspector(app)
        await pilot.press("home", "5")
        await settle(pilot)
        # A line of step numbers, and four lines a lane; columns of 7 cells and more.
        for offset, lane, cursor in (
            ((NAME_CELLS + 1, 1), 1, 0),
            ((NAME_CELLS + 8, 2), 0, 1),
            ((NAME_CELLS + 1, 10), 2, 0),
            ((2, 6), 1, 0),
            ((117, 6), 1, 0),
            ((NAME_CELLS + 8, 0), 1, 0),
        ):
            await pilot.click("#alignment-tokens", offset=offset)
            await settle(pilot)
            assert (screen.lane, screen.cursor) == (lane, cursor)


@pytest.mark.parametrize(
    ("key", "selector", "columns"),
    [
        ("4", "SubspacePanel", [(15, 0), (42, 1), (70, 2), (110, 3), (13, 3)]),
        ("6", "StatisticsPanel", [(40, 2), (26, 1), (60, 3), (80, 3), (24, 3)]),
    ],
)
async def test_a_click_on_a_lanes_column_selects_it(
    key: str, selector: str, columns: list[tuple[int, int]]
) -> None:
    path = Path(__file__).parents[1] / "data" / "choice.trace.jsonl"
    app = PrunetuiApp.replay(read_trace(path), path)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press(key)
        await settle(pilot)
        for column, lane in columns:
            await pilot.click(selector, offset=(column, 2))
            await settle(pilot)
            assert inspector(app).lane == lane


async def test_a_click_on_a_candidate_begins_with_it() -> None:
    session = FakeSession()
    for _ in range(5):
        session.step()
    app = live(session)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, Inspector) and app.screen.trace)
        await settle(pilot)
        panel = app.screen.query_one(CandidatesPanel)
        lines = panel_text(app, "#candidates").splitlines()
        heads = next(row for row, line in enumerate(lines) if line.startswith(' "'))
        for row, highlighted in ((heads + 2, 2), (0, 0), (panel.size.height - 1, 7)):
            await pilot.click(CandidatesPanel, offset=(3, row))
            await until(pilot, lambda: isinstance(app.screen, ForceDialog))
            assert app.screen.query_one(OptionList).highlighted == highlighted
            await pilot.press("escape")


async def test_the_line_of_keys_leads_through_the_views() -> None:
    app = replay(make_trace(20))
    async with app.run_test(size=(120, 40)) as pilot:
        screen = inspector(app)
        await settle(pilot)
        line = screen.query_one(KeyLine)
        seen = []
        for _ in range(7):
            await pilot.click(KeyLine, offset=(line.render_line(0).text.index("views"), 0))
            seen.append(screen.chosen_view)
        assert seen == [*(name for name, _, _ in VIEWS), OVERVIEW]
