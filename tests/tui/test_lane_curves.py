"""View 6's curves over the lanes: places, figures, and the lane that is selected."""

import msgspec
import pytest
from prunetui.engine.trace.analysis.lane_figures import lane_figures
from prunetui.engine.trace.figures import nats
from prunetui.engine.trace.records import Lane
from prunetui.engine.trace.trace import Trace
from prunetui.tui.app import InspectorApp
from prunetui.tui.views.lane_curves import COLLAPSES, LaneCurves
from prunetui.tui.widgets.chart import CURSOR, LABEL_CELLS, Chart, ChartLine, Picture, build_plot
from prunetui.tui.widgets.text_panel import DIVERGES
from textual.pilot import Pilot

from ..support.fake_session import FakeSession
from ..support.screens import both_sizes, inspector, live, ready, replay, settle, until, view_text
from ..support.steps import present
from ..support.traces import make_trace, part_broken, with_local

COUNTS = (0, 1, 2, 6)


def series(steps: int = 80, counts: tuple[int, ...] = COUNTS) -> Trace:
    """Lanes that drop so many attentions, the last of which writes one token from step 2 on."""
    made = with_local(make_trace(steps, len(counts)))
    lanes = [
        Lane(name=name, recipe=name, dropped_attention=[*range(count)], dropped_mlp=[])
        for count in counts
        for name in [f"drop:attn={count}" if count else "control"]
    ]
    header = msgspec.structs.replace(made.header, lanes=[made.header.lanes[0], *lanes])
    trace = Trace(header)
    for step in made.steps:
        token = 5 if step.step >= 2 else step.step
        last = msgspec.structs.replace(present(step.lanes[-1]), token=token)
        trace.append(msgspec.structs.replace(step, lanes=[*step.lanes[:-1], last]))
    return trace


def pictures(app: InspectorApp) -> tuple[Picture, Picture]:
    curves = inspector(app).query_one(LaneCurves)
    kl, steps = (curves.query_one(f"#lane-{name}", Chart) for name in ("kl", "steps"))
    return present(kl.picture), present(steps.picture)


@both_sizes
def test_the_curves_of_a_series(snap_compare, size: tuple[int, int]) -> None:
    async def choose(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, InspectorApp)
        await pilot.press("6", "m", "down", "down", "down")
        await until(pilot, lambda: "sublayers dropped" in view_text(app))
        await settle(pilot)

    assert snap_compare(replay(series()), terminal_size=size, run_before=choose)


async def test_lanes_of_a_series_stand_over_what_they_drop_and_others_over_their_numbers() -> None:
    for trace, places in ((series(), [0, 1, 2, 6]), (with_local(make_trace(30)), [1, 2])):
        app = replay(trace)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("6", "m")
            await settle(pilot)
            kl, steps = pictures(app)
            own = [
                lane_figures(trace.header, trace.steps, lane)
                for lane in [*range(1, len(places) + 1)]
            ]
            assert [*kl.lines[-1].x] == places
            assert [*kl.lines[-1].y] == [one.kl for one in own]
            collapses, divergences = (line.y for line in steps.lines)
            assert [*collapses] == [one.collapse for one in own]
            assert [*divergences] == [one.first_divergence for one in own]
            assert steps.marks == ({COLLAPSES: [6]} if places[0] == 0 else {})
            # Only numbers have an order in which points are joined.
            assert len(kl.lines) == 1 + (places[0] == 0)
            assert ("x: sublayers dropped" in kl.title) == (places[0] == 0)
            assert ("x: lane number" in kl.title) == (places[0] == 1)


async def test_the_selected_lane_has_figures_and_a_click_selects_the_nearest() -> None:
    trace = series()
    own = lane_figures(trace.header, trace.steps, 4)
    assert own.collapse is not None
    app = replay(trace)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("6", "m", "up")
        await until(pilot, lambda: "The baseline has no point" in view_text(app))
        screen = inspector(app)
        width = screen.query_one("#lane-kl").size.width
        for place, lane in ((6, 4), (5, 4), (3, 3), (1, 2), (0, 1)):
            cursor = screen.cursor
            column = LABEL_CELLS + round(place / 6 * (width - LABEL_CELLS - 1))
            await pilot.click("#lane-steps", offset=(column, 3))
            await until(pilot, lambda lane=lane: screen.lane == lane)
            assert screen.cursor == cursor
        await pilot.press("down", "down", "down")
        await settle(pilot)
        line = view_text(app).splitlines()[1]
        assert (
            line.split()
            == (
                f"▸ drop:attn=6 mean local KL(p‖q) {nats(own.kl)} {DIVERGES} first ≠ "
                f"{own.first_divergence} {COLLAPSES} collapse {own.collapse}"
            ).split()
        )
        # The cursor is at 6 sublayers, the last column.
        rows = view_text(app).splitlines()[3:9]
        last = screen.query_one("#lane-kl").region.right - 1
        assert {row.rindex(CURSOR) for row in rows if CURSOR in row} == {last}


async def test_a_mean_that_leaves_steps_out_is_said_and_not_drawn() -> None:
    app = replay(part_broken(10, of=(6, 7, 9)))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("6", "m")
        await until(pilot, lambda: "not numbers at 3 of 10 steps" in view_text(app))
        assert pictures(app)[0].lines[-1].y[0] is None


@pytest.mark.parametrize("trace", [make_trace(0), make_trace(1), make_trace(3, variants=0)])
async def test_little_to_show_is_no_problem(trace: Trace) -> None:
    app = replay(trace)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("6", "m", "up", "down")
        await settle(pilot)
        said = "there is no variant" if len(trace.header.lanes) == 1 else "2 variants over "
        assert said in view_text(app)


async def test_a_live_session_grows_there() -> None:
    session = FakeSession()
    app = live(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, app)
        await pilot.press("6", "m", "right", "right")
        await until(pilot, lambda: f"over {len(session.trace.steps)} steps" in view_text(app))
        assert len(session.trace.steps) >= 2


def test_a_linear_axis_begins_at_0() -> None:
    picture = Picture([ChartLine([0, 1, 2], [0, 100, 50], "mark", "o")], "steps", 3, most=100)
    rows = ["".join(cells) for cells, _ in build_plot(picture, 46, 13).rows]
    # From the top, 100, 50 and 0, each in a column of its own.
    assert [(n, row.index("o")) for n, row in enumerate(rows[1:]) if "o" in row] == [
        (0, 26),
        (5, 45),
        (10, 6),
    ]
    assert rows[1].startswith("  100 ")
    assert rows[11].startswith("    0 ")
