"""The six views: each by its key, as drawn from a recorded trace, and where there is little."""

import math
from pathlib import Path

import msgspec
import pytest
from prunetui.engine.trace.file import read_trace
from prunetui.engine.trace.scales import whole_ticks
from prunetui.engine.trace.trace import Trace
from prunetui.tui.app import InspectorApp
from prunetui.tui.screens.inspector import OVERVIEW
from prunetui.tui.views.catalog import VIEWS
from prunetui.tui.views.theory import LABELS
from prunetui.tui.widgets import chart as chart_module
from prunetui.tui.widgets.candidates import EIGHTHS
from prunetui.tui.widgets.chart import LABEL_CELLS, Chart, ChartLine, Picture, thinned
from prunetui.tui.widgets.diff_panel import compared
from textual.pilot import Pilot

from ..support.screens import both_sizes, inspector, replay, settle, until, view_text
from ..support.traces import make_trace, with_local

names = pytest.mark.parametrize("number", range(1, 7), ids=[name for name, *_ in VIEWS])


def recorded() -> InspectorApp:
    path = Path(__file__).parents[1] / "data" / "natalia.trace.jsonl"
    return replay(read_trace(path), path)


@names
@both_sizes
def test_each_view(snap_compare, number: int, size: tuple[int, int]) -> None:
    async def choose(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, InspectorApp)
        await pilot.press("down", "home", "shift+right", "shift+right", str(number))
        await until(pilot, lambda: "20" in view_text(app))
        await settle(pilot)

    assert snap_compare(recorded(), terminal_size=size, run_before=choose)


@both_sizes
@pytest.mark.parametrize(
    "keys",
    [["3", "m"], ["5", "m"], ["5", "m", "m"], ["5", "m", "m", "m"]],
    ids=["theory-steps", "probability", "kl", "characters"],
)
def test_other_drawings(snap_compare, keys: list[str], size: tuple[int, int]) -> None:
    async def choose(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, InspectorApp)
        await pilot.press("down", "home", "shift+right", "shift+right", *keys)
        await until(pilot, lambda: "20" in view_text(app))
        await settle(pilot)

    assert snap_compare(recorded(), terminal_size=size, run_before=choose)


def test_compared_texts_share_just_their_equal_runs() -> None:
    one, other = compared("she sold 48 clips", "she told 48 [clips")
    assert one == [("she ", True), ("s", False), ("old 48 ", True), ("clips", True)]
    assert other == [
        ("she ", True),
        ("t", False),
        ("old 48 ", True),
        ("[", False),
        ("clips", True),
    ]
    assert compared("", "no") == ([], [("no", False)])


async def test_tokens_are_marked_by_probability_and_by_kl() -> None:
    """At each step, from the trace's own numbers."""
    trace = make_trace(12)
    app = replay(trace)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("home", "5", "m")
        for limits, lowest, value in (
            ((0.9, 0.5), "p ≥ 0.9", lambda s: -s.lanes[1].prob),
            ((0.01, 1.0), "KL ≤ 0.01", lambda s: s.drift[0].kl),
        ):
            await until(pilot, lambda text=lowest: text in view_text(app))
            marks = [
                line.split()
                for line in view_text(app).splitlines()
                if line.split() and set(line.split()) <= {*"·▁▄"}
            ]
            ends = [-limit for limit in limits] if lowest.startswith("p") else limits
            expected = ["·▁▄"[sum(value(s) > end for end in ends)] for s in trace.steps]
            # The baseline has a row of probabilities, too.
            own = marks[1] if lowest.startswith("p") else marks[0]
            assert own == expected[: len(own)]
            assert len(own) > 5
            await pilot.press("m")


@names
async def test_a_key_leads_there_and_back(number: int) -> None:
    app = replay(with_local(make_trace(20)))
    async with app.run_test(size=(120, 40)) as pilot:
        screen = inspector(app)
        await pilot.press(str(number))
        assert screen.chosen_view == VIEWS[number - 1][0]
        await pilot.press(str(number))
        assert screen.chosen_view == OVERVIEW
        await pilot.press(str(number), "escape")
        assert screen.chosen_view == OVERVIEW


@names
@pytest.mark.parametrize("trace", [make_trace(0), make_trace(1), make_trace(3, variants=0)])
async def test_little_to_show_is_no_problem(number: int, trace: Trace) -> None:
    app = replay(trace)
    async with app.run_test(size=(80, 24)) as pilot:
        for keys in (str(number), "up", "left", "right"):
            await pilot.press(keys)
            await pilot.pause(0.05)
        assert view_text(app).strip()


@names
async def test_hostile_text_stays_text(number: int) -> None:
    app = replay(with_local(make_trace(30)))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press(str(number))
        await settle(pilot)
        assert "\x1b" not in view_text(app)


async def test_the_alignment_marks_what_differs() -> None:
    app = replay(make_trace(12))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("home", "5")
        await until(pilot, lambda: "step" in view_text(app))
        lines = view_text(app).splitlines()
        marks = [line.split() for line in lines if set(line.split()) <= {"=", "≠"} and line.split()]
        # Lane 1 leaves the baseline at step 4, lane 2 at step 8.
        first, second = marks[0], marks[1]
        assert first[:4] == ["="] * 4
        assert set(first[4:]) == {"≠"}
        assert second[:8] == ["="] * 8


def diverging(tie: int) -> Trace:
    """Lane 1 leaves the baseline at step 4 and has its token again at 6; step `tie` is a tie."""
    trace = make_trace(12)
    baseline, _, last = trace.steps[6].lanes
    trace.steps[6] = msgspec.structs.replace(trace.steps[6], lanes=[baseline, baseline, last])
    baseline, *others = trace.steps[tie].lanes
    assert baseline
    lanes = [msgspec.structs.replace(baseline, margin=1e-5), *others]
    trace.steps[tie] = msgspec.structs.replace(trace.steps[tie], lanes=lanes)
    return trace


@both_sizes
@pytest.mark.parametrize(
    ("tie", "marks", "figures"),
    [
        (8, "◆≠≠≈≠≠≠", "≠ 7 of 12 tokens are not the baseline's, ◆ from step 4, ≈ 1 by a tie"),
        (4, "◇≠≠≠≠≠≠", "≠ 7 of 12 tokens are not the baseline's, ◇ from step 4, ≈ 1 by a tie"),
        (2, "◆≠≠≠≠≠≠", "≠ 7 of 12 tokens are not the baseline's, ◆ from step 4"),
    ],
)
async def test_every_divergence_is_marked_below_each_chart(
    size: tuple[int, int], tie: int, marks: str, figures: str
) -> None:
    app = replay(diverging(tie))
    async with app.run_test(size=size) as pilot:
        await pilot.press("home", "1")
        await settle(pilot)
        lines = view_text(app).splitlines()
        assert figures in [line.strip() for line in lines]
        rows = [line.split() for line in lines if line.count(marks[0]) == 2]
        assert rows == [[*marks, *marks]] * 2


@pytest.mark.parametrize(
    ("keys", "axes"), [("3", "estimate ↑ measured →"), ("3m", "── measured • estimate")]
)
async def test_every_chart_of_view_3_has_its_title_at_80_columns(keys: str, axes: str) -> None:
    app = recorded()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("down", *keys)
        await settle(pilot)
        text = view_text(app)
        for label in LABELS.values():
            assert text.count(f"{label}: {axes}") == 1


async def test_the_bars_of_the_layers_have_the_scale_of_their_page() -> None:
    app = replay(make_trace(12))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        # 1 − cos is 0, 0.01, 0.02, … after the sublayers of lane 1, twice that in lane 2.
        eighths = {1: [0, 0, 53, 84, 106, 123], 2: [0, 53, 106, 137, 159, 176]}
        for lane in (1, 2):
            await settle(pilot)
            lines = view_text(app).splitlines()
            rows = [line for line in lines if " attn" in line or " mlp" in line]
            bars = [row[47:69] for row in rows]
            filled = [8 * bar.count("█") + EIGHTHS.find(bar.strip("█ ") or " ") for bar in bars]
            # There is room for the other lane's map, below.
            other = 3 - lane
            assert filled == eighths[lane] + eighths[other]
            figures = [
                [f"{0.01 * drawn * sublayer:.4f}" for sublayer in range(1, 6)]
                for drawn in (lane, other)
            ]
            assert [row.split()[-1] for row in rows] == ["0", *figures[0], "0", *figures[1]]
            assert sum("0.01 log 1−cos     0.1   step 11" in line for line in lines) == 2
            await pilot.press("down")


SCALES: dict[str, tuple[list[float | None], str, str]] = {
    "decades": ([0.03, 0.2, 41.0], "0.01", "100"),
    "not finite": ([0.03, None, 0.5], "0.01", "1"),
    "zero": ([0.0, 0.03, 0.5], "≤0.01", "1"),
    "past the highest": ([0.03, 1.9, 0.5], "0.01", "≥1"),
    "six decades": ([1e-12, 0.5, 2.0], "≤1e-5", "10"),
    "one value": ([0.05], "0.01", "0.1"),
    "only zero": ([0.0, 0.0], "≤0.1", "1"),
}


@pytest.mark.parametrize("name", SCALES)
def test_a_chart_has_both_bounds_of_its_scale(name: str) -> None:
    values, low, high = SCALES[name]
    line = ChartLine(range(len(values)), values, "space-h")
    highest = 1.0 if name == "past the highest" else math.inf
    picture = Picture([line], "1−cos h", steps=len(values), highest=highest)
    for height in (5, 8, 17):
        rows = chart_module.build_plot(picture, 40, height).rows
        labels = ["".join(cells[:LABEL_CELLS]).strip() for cells, _ in rows]
        drawn = [label for label in labels if label]
        assert (drawn[0], drawn[-1]) == (high, low)


async def test_the_baseline_has_no_marks() -> None:
    app = replay(make_trace(12))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("up", "1")
        await settle(pilot)
        assert not {*view_text(app)} & {*"◆◇≠≈"}


async def test_marks_merge_and_the_cursor_costs_no_other_drawing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = replay(make_trace(12))
    async with app.run_test(size=(80, 24)) as pilot:
        chart = Chart()
        await app.screen.query_one("#overview").mount(chart)
        await pilot.pause()
        line = ChartLine(range(1000), [0.5] * 1000, "space-h")
        marks = {"≈": [*range(500)], "≠": [*range(0, 1000, 200)], "◆": [990]}
        picture = Picture([line], "1−cos h", steps=1000, marks=marks)

        def columns_of(glyph: str, row: int) -> list[int]:
            text = chart.render_line(row).text[LABEL_CELLS:]
            return [column for column, cell in enumerate(text) if cell == glyph]

        chart.show(picture, 500)
        foot, highest = chart.size.height - 2, 1
        assert columns_of("≠", foot) == [0, 15, 29, 44, 58]
        assert columns_of("≈", foot) == [at for at in range(37) if at not in (0, 15, 29)]
        assert columns_of("◆", foot) == columns_of("┊", highest) == [72]
        assert columns_of("│", highest) == [37]
        # A step that came after the drawing, which is used again.
        monkeypatch.setattr(chart_module, "build_plot", lambda *_: pytest.fail("drawn again"))
        chart.show(picture, 1003)
        assert columns_of("│", highest) == [chart.size.width - LABEL_CELLS - 1]


def test_a_thinned_line_keeps_its_ends() -> None:
    values = [float((x * 7919) % 1000) for x in range(4000)]
    kept = thinned([*range(4000)], values, 200)
    assert len(kept) <= 200
    assert kept == sorted(kept)
    assert {min(values), max(values)} <= {values[place] for place in kept}
    assert thinned([*range(0, 400, 2)], values, 200) == [*range(0, 400, 2)]


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [
        (0, 80, 4, [0, 20, 40, 60, 80]),
        (0, 3, 10, [0, 1, 2, 3]),
        (-5.5, 0.3, 3, [-4, -2, 0]),
        (0.2, 0.8, 5, []),
        (7, 7, 1, [7]),
    ],
)
def test_ticks_are_whole(low: float, high: float, most: int, ticks: list[float]) -> None:
    assert whole_ticks(low, high, most) == ticks


def test_readme_multiple_choice(snap_compare) -> None:
    """The README's picture of a multiple-choice question that pruning does not change."""
    path = Path(__file__).parents[1] / "data" / "choice.trace.jsonl"

    async def choose(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, InspectorApp)
        await pilot.press("down", "down", "home", "4")
        await until(pilot, lambda: "answer" in view_text(app))
        await settle(pilot)

    app = replay(read_trace(path), path)
    assert snap_compare(app, terminal_size=(120, 30), run_before=choose)
