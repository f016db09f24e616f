"""Rows of the texts by need, and what a large terminal shows more of."""

from typing import Any

import msgspec
import pytest
from prunetui.engine.trace.records import Step
from prunetui.engine.trace.trace import Trace
from prunetui.tui.app import InspectorApp
from prunetui.tui.moment import Moment
from prunetui.tui.widgets.candidates import CandidatesPanel
from prunetui.tui.widgets.measures import table
from prunetui.tui.widgets.panel import Panel
from prunetui.tui.widgets.row_shares import share_rows
from prunetui.tui.widgets.text_panel import TextPanel
from prunetui.tui.widgets.variants_panel import VariantsPanel

from ..support.screens import inspector, replay, settle
from ..support.traces import make_header, make_step, make_trace, with_local


@pytest.mark.parametrize(
    ("needs", "growing", "rows", "shares"),
    [
        # All begin alike.
        ([1, 1, 1], [True] * 3, 12, [4, 4, 4]),
        ([1, 1, 1], [True] * 3, 14, [5, 5, 4]),
        # Where all fits, those that still grow have what is left.
        ([7, 1, 2], [True, False, False], 12, [9, 1, 2]),
        ([7, 1, 2], [True, True, False], 13, [9, 2, 2]),
        ([7, 1, 2], [False] * 3, 13, [8, 2, 3]),
        # Where it does not, no lane has more than it needs.
        ([20, 1, 2], [True] * 3, 12, [9, 1, 2]),
        ([20, 30, 2], [True] * 3, 12, [5, 5, 2]),
        ([20, 30, 40], [True] * 3, 14, [5, 5, 4]),
        ([20, 6, 40], [True] * 3, 14, [5, 5, 4]),
        ([3, 5, 1, 9], [True] * 4, 4, [1, 1, 1, 1]),
        ([5], [True], 9, [9]),
    ],
)
def test_rows_go_to_those_that_need_them(
    needs: list[int], growing: list[bool], rows: int, shares: list[int]
) -> None:
    assert share_rows(needs, growing, rows) == shares


def lines_trace(counts: list[int], steps: int) -> Trace:
    """A trace whose lane i says a line at each of its first counts[i] steps, and has ended then."""
    trace = Trace(make_header(len(counts) - 1))
    for number in range(steps):
        trace.append(lines_step(counts, number))
    return trace


def lines_step(counts: list[int], number: int) -> Step:
    step = make_step(number, len(counts) - 1)
    lanes = [
        msgspec.structs.replace(token, text=f"L{lane}.{number}\n", ended=number == count - 1)
        if token and number < count
        else None
        for lane, (token, count) in enumerate(zip(step.lanes, counts, strict=True))
    ]
    return msgspec.structs.replace(step, lanes=lanes)


def moment_of(trace: Trace, cursor: int | None = None, lane: int = 1) -> Moment:
    at = len(trace.steps) - 1 if cursor is None else cursor
    return Moment(trace.header, trace.steps, at, lane)


def panel_of(app: InspectorApp, kind: type[Panel]) -> Any:
    return inspector(app).query_one(kind)


def drawn(panel: Panel) -> list[str]:
    return [panel.render_line(y).text for y in range(panel.size.height)]


async def test_a_long_text_has_the_rows_that_short_ones_leave() -> None:
    trace = lines_trace([9, 1, 2], 9)
    app = replay(trace)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        panel = panel_of(app, TextPanel)
        # A title, 15 lines and three blank ones: all are needed.
        assert panel.size.height == 19
        text = "\n".join(drawn(panel))
        assert [f"L0.{number}⏎" in text for number in range(9)] == [True] * 9
        assert "L1.0⏎" in text
        assert "L2.1⏎" in text
        # Its notes stay beside their lane.
        rows = drawn(panel)
        name = next(y for y, row in enumerate(rows) if "drop:mlp=1" in row)
        assert (name, "L2.0⏎" in rows[name], "L2.1⏎" in rows[name + 1]) == (15, True, True)


async def test_a_click_finds_the_lane_where_it_is_drawn() -> None:
    trace = lines_trace([9, 1, 2], 9)
    app = replay(trace)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        panel = panel_of(app, TextPanel)
        rows = drawn(panel)
        for lane, step in ((2, 1), (0, 7), (1, 0)):
            y = next(y for y, row in enumerate(rows) if f"L{lane}.{step}⏎" in row)
            await pilot.click(panel, offset=(rows[y].index("L"), y))
            assert (inspector(app).lane, inspector(app).cursor) == (lane, step)


async def test_blocks_move_only_to_gain_a_row_they_need() -> None:
    counts = [40, 3, 40]
    trace = lines_trace(counts, 1)
    app = replay(trace)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        panel = panel_of(app, TextPanel)
        heights, changed = [], []
        for number in range(1, 13):
            before = drawn(panel)
            trace.append(lines_step(counts, number))
            panel.show(moment_of(trace))
            after = drawn(panel)
            names = [y for y, row in enumerate(after) if " drop:" in row]
            heights.append((names[0] - 2, names[1] - names[0] - 1, len(after) - names[1]))
            changed.append(sum(old != new for old, new in zip(before, after, strict=True)))
        # They begin alike, above a blank line. When the first and the last are full, they get that
        # and a row of the one between them; then the room is used up, and those two page by half.
        assert heights == [(5, 5, 6)] * 4 + [(6, 4, 6)] * 8
        assert changed == [3, 4, 4, 2, 7, 12, 2, 3, 12, 2, 2, 12]


async def test_nothing_pages_while_all_fits() -> None:
    counts = [12, 1, 1]
    trace = lines_trace(counts, 1)
    app = replay(trace)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        panel = panel_of(app, TextPanel)
        for number in range(1, 12):
            trace.append(lines_step(counts, number))
            panel.show(moment_of(trace))
            assert "L0.0⏎" in drawn(panel)[1]
            assert any(f"L0.{number}⏎" in row for row in drawn(panel))


async def test_the_end_of_a_text_that_has_ended_leaves_no_row_blank() -> None:
    trace = lines_trace([30, 30, 1], 29)
    app = replay(trace)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        panel = panel_of(app, TextPanel)
        trace.append(lines_step([30, 30, 1], 29))
        panel.show(moment_of(trace))
        # The lanes share 16 rows as 7, 7 and 2.
        last = [row.split()[-1] for row in drawn(panel)[1:8]]
        assert last == [*(f"L0.{number}⏎" for number in range(24, 30)), "■"]


async def test_lanes_stand_side_by_side_where_there_is_width() -> None:
    trace = make_trace(12, 4)
    app = replay(trace)
    names = [lane.name for lane in trace.header.lanes]
    async with app.run_test(size=(120, 40)) as pilot:
        for width, shown in ((120, [0, 1]), (200, [0, 1, 2, 3]), (260, [0, 1, 2, 3, 4])):
            await pilot.resize_terminal(width, 40)
            await settle(pilot)
            row = drawn(panel_of(app, CandidatesPanel))[1]
            assert row.replace("▸ ", "").split() == [names[lane] for lane in shown]
        await pilot.resize_terminal(200, 40)
        await pilot.press("down", "down", "down")
        await settle(pilot)
        row = drawn(panel_of(app, CandidatesPanel))[1]
        assert row.split() == [names[0], names[2], names[3], "▸", names[4]]


async def test_a_tall_terminal_shows_the_drift_of_all_variants() -> None:
    trace = with_local(make_trace(12, 4))
    app = replay(trace)
    async with app.run_test(size=(200, 60)) as pilot:
        await settle(pilot)
        panel = panel_of(app, VariantsPanel)
        title, head, *rows = drawn(panel)
        assert title.startswith("all variants at step 11 ─")
        assert head.split() == [
            "1",
            "−",
            "cos",
            "h",
            "z",
            "p",
            "KL(p‖q)",
            "top-1",
            "local",
            "KL",
            "top-1",
        ]
        assert len(rows) == 4
        for lane, row in enumerate(rows, start=1):
            drift, local = trace.steps[-1].drift_of(lane), trace.steps[-1].local_of(lane)
            assert drift is not None
            assert local is not None
            spaces, kl, local_kl = (
                *(table(drift)[1].figures, table(drift)[1].figure, table(local)[1].figure),
            )
            top1, local_top1 = ("same" if d.top1 else "differs" for d in (drift, local))
            name = trace.header.lanes[lane].name
            figures = f"{name} {spaces} {kl} {top1} {local_kl} {local_top1}"
            assert row.replace("▸", "").split() == figures.split()
        assert rows[0].startswith("▸ ")
        await pilot.click(panel, offset=(5, 4))
        await settle(pilot)
        assert inspector(app).lane == 3
        assert drawn(panel)[4].startswith("▸ drop:attn=[0,2] ")
        for size in ((200, 49), (120, 40), (80, 24)):
            await pilot.resize_terminal(*size)
            await settle(pilot)
            assert not panel.is_on_screen


async def test_the_lower_panels_have_the_rows_that_the_texts_do_not_need() -> None:
    counts = [26, 1, 1]
    trace = lines_trace(counts, 1)
    app = replay(trace)
    async with app.run_test(size=(200, 60)) as pilot:
        lower = inspector(app).query_one("#lower")
        heights = []
        for number in range(1, 26):
            await settle(pilot)
            heights.append(lower.size.height)
            trace.append(lines_step(counts, number))
            inspector(app).draw()
        await settle(pilot)
        panel = panel_of(app, TextPanel)
        # Of 58 rows, the texts need a title, two blank lines, two lines each for the variants and
        # one a step: 32 rows are left over before the 20th step.
        assert heights == [32] * 19 + [23] * 6
        assert all(any(f"L0.{number}⏎" in row for row in drawn(panel)) for number in range(26))
