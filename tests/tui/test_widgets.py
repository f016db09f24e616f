"""Panels: the lines they draw, the regions they send again, and no raw control characters."""

import math
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.trace.records import Drift
from prunetui.engine.trace.trace import Trace
from prunetui.tui.moment import Moment
from prunetui.tui.screens.export import ExportDialog
from prunetui.tui.screens.prompt import Decoding, PromptEditor
from prunetui.tui.session_thread import Stage
from prunetui.tui.widgets.candidates import (
    CandidatesPanel,
    horizontal_bar,
    probability,
    quoted,
    ranked,
)
from prunetui.tui.widgets.drift_panel import (
    BELOW,
    BLOCKS,
    CHARTS,
    LABEL_CELLS,
    SCALE_CELLS,
    DriftPanel,
    vertical_bars,
)
from prunetui.tui.widgets.loading import LoadingPanel
from prunetui.tui.widgets.measures import table
from prunetui.tui.widgets.panel import NOT_FINITE, Line, Panel, shorten
from prunetui.tui.widgets.series import LinearScale, LogScale, Scale, Series, ratchet
from prunetui.tui.widgets.status import StatusLine, bandwidth_share
from prunetui.tui.widgets.text_panel import DIVERGES, TIES, Block, TextPanel
from prunetui.tui.widgets.wrapping import Wrapped
from rich.style import Style
from textual.app import App
from textual.geometry import Region

from ..support.fake_session import FakeSession
from ..support.screens import live, replay, screen_lines, until
from ..support.steps import drift_of
from ..support.traces import make_header, make_step, make_trace

# -- wrapping -------------------------------------------------------------------------------------


def wrap(width: int, *tokens: str) -> list[str]:
    wrapped = Wrapped(width)
    for step, token in enumerate(tokens):
        wrapped.append(step, token)
    return ["".join(piece.text for piece in line) for line in wrapped.lines]


@pytest.mark.parametrize(
    ("width", "tokens", "lines"),
    [
        (10, [], [""]),
        (10, ["The", " cat", " sat"], ["The cat", "sat"]),
        (11, ["The", " cat", " sat"], ["The cat sat"]),
        (10, ["The", " diver", "gent"], ["The", "divergent"]),
        (4, ["abcdefghij"], ["abcd", "efgh", "ij"]),
        (4, ["ab", "cdefgh"], ["ab", "cdef", "gh"]),
        (5, ["漢字", "漢字"], ["漢字", "漢字"]),
        (3, ["漢字"], ["漢", "字"]),
        (10, ["a\n", "b"], ["a⏎", "b"]),
        (10, ["a", "\n", "\n", "b"], ["a⏎⏎", "b"]),
        (10, ["a\n\nb\n", "c"], ["a⏎⏎", "b⏎", "c"]),
        (2, ["a", "\n\n", "b"], ["a", "⏎⏎", "b"]),
        (10, ["\x1b[31m"], ["␛[31m"]),
        (10, ["[INST]", "[/foo]"], ["[INST]", "[/foo]"]),
    ],
)
def test_wrapping(width: int, tokens: list[str], lines: list[str]) -> None:
    assert wrap(width, *tokens) == lines


def test_one_more_token_touches_only_the_last_line() -> None:
    wrapped = Wrapped(20)
    for step in range(200):
        kept = [list(line) for line in wrapped.lines[:-1]]
        wrapped.append(step, f" w{step * 7919 % 1000}")
        assert wrapped.lines[: len(kept)] == kept


def test_tokens_inside_a_character_stand_with_the_one_that_completes_it() -> None:
    wrapped = Wrapped(10)
    for step, text in enumerate(["a", "", "", "é", ""]):
        wrapped.append(step, text)
    assert [tuple(piece) for piece in wrapped.lines[0]] == [(0, 0, "a"), (1, 3, "é")]
    assert wrapped.line_of == [0, 0, 0, 0, 0]


def test_each_step_knows_the_line_on_which_it_begins() -> None:
    wrapped = Wrapped(10)
    for step, text in enumerate(["The", " diver", "gent", " text", "\n", "0123456789abc", "z"]):
        wrapped.append(step, text)
    assert wrapped.line_of == [0, 1, 1, 2, 2, 3, 4]


# -- paging ---------------------------------------------------------------------------------------


def one_token_a_line(steps: int, height: int) -> Block:
    block = Block(0, 10, height)
    header = make_header(0)
    trace = Trace(header)
    for number in range(steps):
        step = make_step(number, 0)
        assert step.lanes[0]
        token = msgspec.structs.replace(step.lanes[0], text=f"line{number:03}\n")
        trace.append(msgspec.structs.replace(step, lanes=[token]))
    block.take(header, trace.steps)
    return block


def test_the_page_jumps_by_half_a_block_when_the_cursor_leaves_it() -> None:
    block = one_token_a_line(20, 4)
    tops = []
    for cursor in range(8):
        block.turn_to(cursor)
        tops.append(block.top)
    assert tops == [0, 0, 0, 0, 2, 2, 4, 4]
    block.turn_to(4)
    assert block.top == 4
    block.turn_to(3)
    assert block.top == 1


def test_the_page_is_full_after_a_jump_to_the_end() -> None:
    block = one_token_a_line(20, 4)
    block.turn_to(19)
    assert block.top == 16


# -- series and bars ------------------------------------------------------------------------------


def test_buckets_double_and_keep_the_highest() -> None:
    series = Series(4, LinearScale)
    for value in [1, 5, 2, 8]:
        series.append(value)
    assert (series.bucket, series.values) == (1, [1, 5, 2, 8])
    series.append(4)
    assert (series.bucket, series.values) == (2, [5, 8, 4])
    for value in [3, 9, 9]:
        series.append(value)
    assert series.values == [5, 8, 4, 9]
    series.append(0)
    assert (series.bucket, series.values) == (4, [8, 9, 0])
    assert [series.column(step) for step in (0, 3, 4, 8)] == [0, 0, 1, 2]


def test_an_odd_number_of_columns_doubles_too() -> None:
    series = Series(3, LinearScale)
    for value in [1, 2, 3, 0, 5, 6, 7]:
        series.append(value)
    assert (series.bucket, series.values) == (4, [3, 7])
    assert series.length == 7


def test_what_is_not_finite_is_the_worst() -> None:
    series = Series(2, LogScale)
    for value in [1.0, None, 3.0]:
        series.append(value)
    assert series.values == [None, 3.0]
    assert series.shares()[0] is None


def test_the_series_of_any_trace_is_as_if_it_were_bucketed_at_once() -> None:
    values = [(step * 7919) % 1000 / 10 for step in range(333)]
    series = Series(13, LinearScale)
    for value in values:
        series.append(value)
    size = series.bucket
    assert series.values == [max(values[at : at + size]) for at in range(0, 333, size)]
    assert len(series.values) <= 13


@pytest.mark.parametrize(
    ("top", "value", "new"),
    [
        *[(1, 0.3, 1), (1, 1, 1), (1, 1.1, 2), (2, 4.9, 5), (5, 9, 10), (10, 11, 20)],
        *[(20, 3, 20), (1e-6, 0, 1e-6), (1e-6, 0.00031, 5e-4), (0.05, 0.051, 0.1)],
    ],
)
def test_the_range_only_rises(top: float, value: float, new: float) -> None:
    assert ratchet(top, value) == new


def spans(new_scale: type[Scale], values: list[float | None], columns: int = 99) -> list[str]:
    """Bounds of a series' scale after each value."""
    series = Series(columns, new_scale)
    result = []
    for value in values:
        series.append(value)
        result.append(series.span)
    return result


def test_a_linear_scale_begins_at_0_and_rises_by_steps() -> None:
    values = [0.0, None, 0.0004, 0.0003, 0.0123, 0.9, 1.3, 0.1]
    assert spans(LinearScale, values) == [
        *["0–1e-6", "0–1e-6", "0–5e-4", "0–5e-4", "0–0.02", "0–1", "0–2", "0–2"]
    ]


def test_a_logarithmic_scale_moves_by_decades() -> None:
    assert spans(LogScale, [0.0, None, 0.03, 0.05, 0.3, 0.0002, 41.0, 1.0]) == [
        *["all 0", "all 0", "0.01–0.1", "0.01–0.1", "0.01–1", "1e-4–1", "1e-4–100", "1e-4–100"]
    ]
    # No longer than six decades: what is below is at the foot.
    assert spans(LogScale, [1e-9, 0.5, 200.0, 5e300]) == [
        *["1e-7–0.1", "1e-6–1", "1e-3–1e3", "1e295–1e301"]
    ]
    # A merge begins again from what is left to draw.
    assert spans(LogScale, [1e-3, 0.5, 1e-3, 0.5, 0.7], columns=4)[-2:] == ["1e-3–1", "0.1–1"]


def test_the_height_of_a_value_is_its_place_in_the_scale() -> None:
    log = Series(9, LogScale)
    for value in [0.01, 0.1, 1.0, 0.0, -1e-17, None]:
        log.append(value)
    assert log.shares() == [0.0, 0.5, 1.0, -math.inf, -math.inf, None]
    linear = Series(9, LinearScale)
    for value in [0.0, 0.1, 0.4]:
        linear.append(value)
    assert linear.shares() == [0.0, 0.2, 0.8]


def test_vertical_bars() -> None:
    shares = [0.0, 0.25, 0.5, 1.0, None, -0.3, -math.inf]
    assert vertical_bars(shares, 1) == ["▁▂▄▇×··"]
    assert vertical_bars(shares, 2) == ["   ▇   ", "▁▄██×··"]
    assert vertical_bars([1.7, 1.0], 1) == ["▇▇"]
    assert vertical_bars([], 2) == ["", ""]


def test_horizontal_bars_and_probabilities() -> None:
    assert [horizontal_bar(v, 4) for v in (0, 0.25, 0.5 + 1 / 32, 1, 7)] == [
        "    ",
        "█   ",
        "██▏ ",
        "████",
        "████",
    ]
    assert [probability(v) for v in (None, 0, 0.001, 0.005, 0.814, 0.999, 1)] == [
        " n/a",
        " .00",
        "<.01",
        " .01",
        " .81",
        "1.00",
        "1.00",
    ]


# -- candidates, measures -------------------------------------------------------------------------


def test_a_token_is_quoted_so_that_spaces_and_newlines_show() -> None:
    assert [quoted(text) for text in (" a", "\n", "", "\x1b")] == ['" a"', '"⏎"', '""', '"␛"']


def test_chosen_tokens_come_first_then_the_most_probable_in_either_lane() -> None:
    step = make_step(5)
    order = ranked(step, [0, 1], chosen_first=True)
    tokens, probs = step.candidates.tokens, step.candidates.probs
    chosen = {token.token for token in step.lanes[:2] if token} & set(tokens)
    assert {tokens[place] for place in order[: len(chosen)]} == chosen
    rest = [max(probs[0][place], probs[1][place]) for place in order[len(chosen) :]]  # type: ignore[index]
    assert rest == sorted(rest, reverse=True)
    assert sorted(order) == list(range(len(tokens)))


def test_the_table_names_every_measure_with_its_unit() -> None:
    drift = make_step(3).drift[0]
    assert drift
    rows = table(drift)
    assert [(row.label.strip(), row.name.strip()) for row in rows] == [
        ("h        z        p", "KL(p‖q)"),
        ("1 − cos", ""),
        ("estimate", ""),
        ("centred z", "KL(q‖p)"),
        ("parallel", "Δp"),
        ("orthogonal", "top-1"),
    ]
    in_nats = [row.figure.endswith(" nats") for row in rows]
    assert in_nats == [False, True, True, True, False, False]
    cosines = (drift.cos_h, drift.cos_z, drift.cos_p)
    assert rows[1].figures.split() == [f"{1 - (cos or 0):.4f}" for cos in cosines]
    assert rows[4].figure.strip() == f"{100 * (drift.dp or 0):+.2f}%"
    empty = msgspec.structs.replace(
        drift, **{key: None for key in Drift.__struct_fields__ if key != "top1"}
    )
    assert all(figure == "n/a" for row in table(empty)[1:5] for figure in row.figures.split())


# -- panels on a screen ---------------------------------------------------------------------------


def moment_of(trace: Trace, cursor: int | None = None, lane: int = 1) -> Moment:
    at = len(trace.steps) - 1 if cursor is None else cursor
    return Moment(trace.header, trace.steps, at, lane)


def panel_of(app: App[None], kind: type[Panel]) -> Any:
    return app.screen_stack[0].query_one(kind)


def drawn(panel: Panel) -> list[str]:
    return [panel.render_line(y).text for y in range(panel.size.height)]


def sent(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> list[Region]:
    """Regions that the panel refreshes from now on; the whole panel is `Region()`."""
    regions: list[Region] = []
    monkeypatch.setattr(panel, "refresh", lambda *given: regions.extend(given or [Region()]))
    return regions


async def test_a_step_sends_the_last_line_of_each_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = make_trace(10)
    async with replay(trace).run_test(size=(120, 40)) as pilot:
        panel = panel_of(pilot.app, TextPanel)
        panel.show(moment_of(trace))
        before = drawn(panel)
        regions = sent(panel, monkeypatch)
        trace.append(make_step(10))
        panel.show(moment_of(trace))
        after = drawn(panel)
        changed = [y for y, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        assert len(changed) == 3
        assert [region.y for region in regions] == changed
        assert all(region.width < panel.size.width for region in regions)


async def test_drawing_the_same_again_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = make_trace(10)
    async with replay(trace).run_test(size=(120, 40)) as pilot:
        for kind in (TextPanel, CandidatesPanel, DriftPanel):
            panel = panel_of(pilot.app, kind)
            panel.show(moment_of(trace))
            drawn(panel)
            regions = sent(panel, monkeypatch)
            panel.show(moment_of(trace))
            assert regions == []


@pytest.mark.parametrize("steps", [12, 33, 600])
async def test_a_step_changes_one_column_of_each_chart(steps: int) -> None:
    trace = make_trace(steps)
    async with replay(trace).run_test(size=(120, 40)) as pilot:
        panel = panel_of(pilot.app, DriftPanel)
        panel.show(moment_of(trace, cursor=0))
        before = drawn(panel)
        trace.append(make_step(steps))
        panel.show(moment_of(trace, cursor=0))
        columns = {
            x
            for old, new in zip(before, drawn(panel), strict=True)
            for x, (a, b) in enumerate(zip(old, new, strict=True))
            if a != b
        }
        bucket = 1 if steps < 36 else 32
        assert columns <= {SCALE_CELLS + steps // bucket}


async def test_a_rewind_and_another_lane_draw_the_charts_anew() -> None:
    trace = make_trace(12)
    async with replay(trace).run_test(size=(120, 40)) as pilot:
        panel = panel_of(pilot.app, DriftPanel)
        panel.show(moment_of(trace))
        long = drawn(panel)
        trace.rewind(4)
        panel.show(moment_of(trace))
        short = drawn(panel)
        assert short != long
        panel.show(moment_of(trace, lane=2))
        assert drawn(panel) != short
        panel.show(moment_of(trace))
        assert drawn(panel) == short


async def test_divergence_and_end_are_marked() -> None:
    trace = make_trace(10)
    last = trace.steps[-1]
    ended = msgspec.structs.replace(last.lanes[0], ended=True)  # type: ignore[type-var]
    trace.steps[-1] = msgspec.structs.replace(last, lanes=[ended, *last.lanes[1:]])
    drift: list[Drift | None] = [None, None]
    gone = msgspec.structs.replace(
        make_step(10),
        lanes=[None, *make_step(10).lanes[1:]],
        drift=drift,
        candidates=msgspec.structs.replace(
            make_step(10).candidates, probs=[None, *make_step(10).candidates.probs[1:]]
        ),
    )
    trace.append(gone)
    async with replay(trace).run_test(size=(120, 40)) as pilot:
        text = panel_of(pilot.app, TextPanel)
        text.show(moment_of(trace))
        rows = "\n".join(drawn(text))
        assert rows.count("■") == 1
        assert "word3◆[/foo]␛[31m" in rows
        assert "◆ step 4" in rows
        assert "◆ step 8" in rows
        candidates = panel_of(pilot.app, CandidatesPanel)
        candidates.show(moment_of(trace))
        assert "has ended" in "\n".join(drawn(candidates))
        chart = panel_of(pilot.app, DriftPanel)
        chart.show(moment_of(trace))
        assert "not measured: one of the two lanes has ended" in "\n".join(drawn(chart))


async def test_in_a_forced_context_only_the_tokens_that_differ_take_the_colour() -> None:
    header = msgspec.structs.replace(make_header(1), context="forced")
    trace = Trace(header)
    for number in range(6):
        step = make_step(number, 1)
        if number == 5:
            step = msgspec.structs.replace(step, lanes=[step.lanes[0], step.lanes[0]])
        trace.append(step)
    async with replay(trace).run_test(size=(120, 40)) as pilot:
        panel = panel_of(pilot.app, TextPanel)
        colours = {}
        for context in ("forced", "free"):
            moment = moment_of(trace, cursor=0)
            panel.show(replace(moment, header=msgspec.structs.replace(header, context=context)))
            line = next(y for y, row in enumerate(drawn(panel)) if "drop:attn=1" in row)
            diverged = panel.style("text--later-diverged")
            colours[context] = "".join(
                segment.text for segment in panel.render_line(line) if segment.style == diverged
            ).rstrip()
        assert colours == {"forced": "[/foo]", "free": "[/foo][/foo]"}


async def test_the_status_line_drops_what_matters_least() -> None:
    trace = make_trace(10)
    async with replay(trace).run_test(size=(120, 40)) as pilot:
        line = panel_of(pilot.app, StatusLine)

        def text() -> str:
            sought, moment = "◉ kl > 5 (2)", moment_of(trace)
            line.show(moment, state="‖ paused", sought=sought, recording="none", alert="")
            return line.render_line(0).text

        assert " ".join(text().split()) == (
            "tiny cpu·float32 3 lanes free greedy "
            "10/64 steps ‖ paused ◉ kl > 5 (2) 25 tok/s 50% bw 1.0 GB none"
        )
        await pilot.resize_terminal(60, 20)
        assert "10/64 steps  ‖ paused  ◉ kl > 5 (2)" in text()
        assert "GB" not in text()


# -- hostile text ---------------------------------------------------------------------------------

CONTROLS = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    "\u061c",
    "\u200e",
    "\u200f",
    *map(chr, range(0x202A, 0x202F)),
    *map(chr, range(0x2066, 0x206A)),
]


def hostile_trace(text: str) -> Trace:
    header = make_header(1)
    header = msgspec.structs.replace(
        header,
        model=msgspec.structs.replace(header.model, name=text, device=text, dtype=text),
        prompt=msgspec.structs.replace(header.prompt, text=text),
        lanes=[msgspec.structs.replace(lane, name=text) for lane in header.lanes],
    )
    trace = Trace(header)
    for number in range(2):
        step = make_step(number, 1)
        texts = [text] * len(step.candidates.texts)
        trace.append(
            msgspec.structs.replace(
                step,
                lanes=[msgspec.structs.replace(t, text=text) for t in step.lanes if t],
                candidates=msgspec.structs.replace(step.candidates, texts=texts),
            )
        )
    return trace


async def test_no_control_character_reaches_the_screen() -> None:
    async with replay(make_trace(2)).run_test(size=(120, 40)) as pilot:
        panels = [panel_of(pilot.app, k) for k in (TextPanel, CandidatesPanel, DriftPanel)]
        status = panel_of(pilot.app, StatusLine)
        for control in CONTROLS:
            moment = moment_of(hostile_trace(f"a{control}b"))
            for panel in panels:
                panel.show(moment)
                assert "ab" not in "".join(drawn(panel))
                assert control not in "".join(drawn(panel)), (panel, hex(ord(control)))
            for alert in ("", f"a{control}b"):
                status.show(moment, state=control, sought=control, recording=control, alert=alert)
                assert control not in "".join(drawn(status)), hex(ord(control))


async def test_no_control_character_passes_while_loading() -> None:
    app = live(FakeSession())
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.screen_stack[0].query_one(Panel))
        stages: list[Stage] = []
        panel = LoadingPanel("x", lambda: stages)
        await app.screen.mount(panel)
        for control in CONTROLS:
            stages[:] = [Stage(f"a{control}b", 0.0)]
            panel.fail(UserError(f"a{control}b c"))
            lines = [line.strip(80, panel.rich_style).text for line in panel.draw(80, 20)]
            assert control not in "".join(lines), hex(ord(control))


@pytest.mark.parametrize("kind", ["prompt", "export", "refused", "notified"])
async def test_no_control_character_passes_a_dialog(kind: str) -> None:
    kept = "" if kind != "prompt" else "\n\t"
    hostile = "".join(c for c in CONTROLS if c not in kept and c != "\0")
    app = replay(make_trace(2))
    async with app.run_test(size=(300, 60), notifications=True) as pilot:
        if kind == "prompt":
            decoding = Decoding(hostile, raw=False, sampling=make_header().sampling)
            await app.push_screen(PromptEditor(decoding))
        elif kind == "notified":
            app.screen_stack[0].notify("x", markup=False)
        else:
            dialog = ExportDialog(make_trace(2), hostile, "<svg/>")
            await app.push_screen(dialog)
            if kind == "refused":
                dialog.refuse(hostile)
        await pilot.pause()
        text = "".join(screen_lines(app.screen))
        assert not [hex(ord(c)) for c in CONTROLS if c in text]


def test_every_line_is_made_visible_and_cut_to_its_cells() -> None:
    from rich.style import Style

    plain, bold = Style(), Style(bold=True)
    line = Line().add("a\x1b", plain).add("[b]", plain).add("漢", bold)
    assert [segment.text for segment in line.strip(8, plain)] == ["a␛[b]", "漢 "]
    assert line.strip(6, plain).text == "a␛[b] "
    assert [shorten("漢字漢字", cells) for cells in (8, 7, 1, 0)] == [
        "漢字漢字",
        "漢字漢…",
        "…",
        "",
    ]


def test_a_tie_has_a_mark_of_its_own() -> None:
    header, step = make_header(1), make_step(4, 1)
    close = [msgspec.structs.replace(token, margin=0.0) for token in step.lanes if token]
    for made, mark in ((step, DIVERGES), (msgspec.structs.replace(step, lanes=close), TIES)):
        block = Block(1, 40, 2)
        block.take(header, [msgspec.structs.replace(made, step=0)])
        assert mark in "".join(piece.text for piece in block.pieces(0))
        assert block.mark == mark


def test_the_status_line_says_how_much_of_the_bandwidth_is_used() -> None:
    """500 MB at 25 GB/s take half of a step of 40 ms."""
    header = make_header(1)
    assert bandwidth_share(header, [make_step(0, 1)]) == "50% bw"
    assert bandwidth_share(header, []) == ""


@pytest.mark.parametrize(
    ("kl", "figure"),
    [
        (9.256e-5, "9.3e-5 nats"),
        (0.000123, "1.2e-4 nats"),
        (0.0123, "0.0123 nats"),
        (0.0, "0 nats"),
        (12.3456, "12.3 nats"),
        (1e-12, "1.0e-12 nats"),
    ],
)
def test_a_divergence_keeps_its_unit(kl: float, figure: str) -> None:
    drift = make_step(1).drift[0]
    assert drift is not None
    (chart,) = (measure for measure in CHARTS if measure.space == "kl")
    assert chart.figure(msgspec.structs.replace(drift, kl=kl)) == figure


def drawn_alone(moment: Moment, width: int, height: int) -> list[str]:
    """Lines of a drift panel that is on no screen."""
    panel = DriftPanel()
    panel.moment = moment
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DriftPanel, "style", lambda *_: Style())
        patch.setattr(DriftPanel, "rich_style", Style())
        return [line.strip(width, Style()).text for line in panel.draw(width, height)]


@pytest.mark.parametrize("width", [26, 28, 30, 37, 40, 57, 80, 120])
@pytest.mark.parametrize("height", [9, 10])
@pytest.mark.parametrize("kl", [0.0777, 12.25, 1e-9, 123456.0, 3.4e-12, 1.2e308])
def test_no_figure_of_the_drift_touches_its_chart(width: int, height: int, kl: float) -> None:
    trace = make_trace(300)
    drift = msgspec.structs.replace(drift_of(trace.steps[-1]), kl=kl)
    trace.steps[-1] = msgspec.structs.replace(trace.steps[-1], drift=[drift, None])
    lines = drawn_alone(Moment(trace.header, trace.steps, 299, 1), width, height)
    number = next(row for row, line in enumerate(lines) if line.startswith("KL(p‖q)"))
    line, below = lines[number : number + 2]
    # With two rows a chart there is room for the unit beside the figure.
    label_cells, unit = (SCALE_CELLS, " nats") if height == 10 else (LABEL_CELLS + SCALE_CELLS, "")
    cells, figure = line[label_cells:].rstrip().removesuffix(unit).rsplit(" ", 1)
    assert set(cells) <= {*BLOCKS, NOT_FINITE, BELOW}
    assert float(figure) == pytest.approx(kl, rel=0.5)
    assert "nats" in (line if unit else below)
    assert "log" in below


def with_drift(*columns: dict[str, list[float | None]]) -> Trace:
    """A trace of one variant with these measures on its own tokens, and then on the baseline's."""
    context = "free" if len(columns) == 1 else "both"
    trace = Trace(msgspec.structs.replace(make_header(1), context=context))
    for number in range(len(columns[0]["kl"])):
        step = make_step(number, 1)
        drifts = [
            msgspec.structs.replace(
                drift_of(step), **{key: values[number] for key, values in column.items()}
            )
            for column in columns
        ]
        trace.append(msgspec.structs.replace(step, drift=drifts[:1], local=drifts[1:] or None))
    return trace


def test_each_chart_of_the_drift_has_its_own_scale_beside_it() -> None:
    """At 80 columns in context both: eight charts of one row."""
    own: dict[str, list[float | None]] = {
        "cos_h": [1 + 2e-16, 0.5, -0.2],
        "cos_z": [0.99, 0.97, None],
        "cos_p": [1.0, 1.0, 1.0],
        "kl": [0.0, 9.0, 41.0],
    }
    near = {"cos_h": 0.99985, "cos_z": 0.9998, "cos_p": 0.9, "kl": 0.002}
    trace = with_drift(own, {key: [value] * 3 for key, value in near.items()})
    lines = drawn_alone(moment_of(trace, cursor=1), 38, 10)
    assert [line[:17].rstrip() for line in lines[1:]] == [
        "1−cos h 0–2",
        "  local 0–2e-4",
        "1−cos z 0–0.05",
        "  local 0–2e-4",
        "1−cos p 0–1e-6",
        "  local 0–0.1",
        "KL(p‖q) 1–100",
        "  local 1e-3–0.1",
        "KL: nats, log",
    ]
    # A cosine past 1 is 1; a KL of 0 has no logarithm; what is not finite is a cross.
    assert [line[17:30].rstrip() for line in lines[1:9]] == [
        *["▁▂▄", "▅▅▅", "▁▄×", "▇▇▇", "▁▁▁", "▇▇▇", "·▃▆", "▁▁▁"]
    ]
    assert [line[30:].strip() for line in lines[1:]] == [
        *["0.5000", "1.5e-4", "0.0300", "2.0e-4", "0", "0.1000", "9.00", "0.00200", "step"]
    ]


def test_higher_charts_have_their_scale_below_their_label() -> None:
    near: list[float | None] = [0.9, 0.8]
    trace = with_drift({"cos_h": near, "cos_z": near, "cos_p": near, "kl": [0.5, 5.0]})
    lines = drawn_alone(moment_of(trace), 38, 10)
    assert [line[:9].rstrip() for line in lines[1:]] == [
        *["1−cos h", "0–0.2", "1−cos z", "0–0.2", "1−cos p", "0–0.2", "KL(p‖q)", "0.1–10", "step"]
    ]
    assert [line[25:].strip() for line in lines[1:9]] == [
        *["0.2000", "linear"] * 3,
        "5.00 nats",
        "log",
    ]


def test_a_scale_moves_at_few_steps() -> None:
    """What stands left of the charts is sent again only when a bound moves."""
    trace = make_trace(60)
    spans = []
    for count in range(1, 61):
        moment = Moment(trace.header, trace.steps[:count], count - 1, 1)
        spans.append([line[:SCALE_CELLS] for line in drawn_alone(moment, 57, 10)])
    moved = [step for step in range(1, 60) if spans[step] != spans[step - 1]]
    assert moved == [1, 2, 3, 4, 5, 6, 10, 14, 17, 35]
