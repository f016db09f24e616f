"""Figures: one text for each, wherever it stands."""

import math

import pytest
from prunetui.engine.trace import figures
from prunetui.engine.trace.analysis.statistics import statistics
from prunetui.engine.trace.analysis.summary import summarize
from prunetui.engine.trace.export.html import to_html
from prunetui.engine.trace.export.markdown import to_markdown
from prunetui.engine.trace.export.summary_table import summary_cells
from prunetui.engine.trace.scales import Decades, decades_around, power_of_ten
from prunetui.tui.cli.record_table import table_lines

from ..support.screens import replay, settle, view_text
from ..support.traces import make_trace


@pytest.mark.parametrize(
    ("form", "texts"),
    [
        (
            figures.cosine,
            {None: "n/a", 0.45544: "0.4554", 0.99994: "0.9999", 0.99997: "1−3.0e-5"}
            | {1.0: "1", 1 + 2e-16: "1", 1 - 1e-16: "1", -1.0: "-1.0000", 0.0: "0.0000"},
        ),
        (
            figures.distance,
            {None: "n/a", 0.0: "0", 1e-16: "0", 3.14e-6: "3.1e-6", 0.001: "0.0010"}
            | {0.05881: "0.0588", 2.0: "2.0000", -0.12: "-0.1200", 123456.0: "1.2e5"},
        ),
        (
            figures.kl,
            {None: "n/a", 0.0: "0", -1e-17: "0", 0.000123: "1.2e-4", 0.00123: "0.00123"}
            | {0.08125: "0.0813", 9.834: "9.83", 99.96: "100", 1234.5: "1.2e3"},
        ),
        (figures.change, {None: "n/a", 3.1: "+3.10", -0.08125: "-0.0813", 1e-17: "0", -0.0: "0"}),
        (figures.nats, {None: "n/a", 9.834: "9.83 nats", 0.0: "0 nats"}),
        (
            figures.in_five_cells,
            {None: "n/a", 0.0: "0", 0.0004: "<.001", 0.0123: "0.012", 9.9996: "10.0"}
            | {0.9996: "1.00", 8.7234: "8.72", 123.46: "123", 1234.5: "1.2e3"},
        ),
        (figures.share, {None: "n/a", 0.84615: "84.6%", 1.0: "100.0%"}),
        (figures.difference, {None: "n/a", -0.02134: "-2.13%", 0.5: "+50.00%", -1e-6: "0.00%"}),
        (figures.deviation, {None: "n/a", 0.02134: "2.13%"}),
        (figures.ratio, {None: "n/a", 1.03412: "1.034"}),
        (figures.step_number, {None: "–", 4: "4"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_text_of_a_figure(form, texts: dict[float | None, str]) -> None:
    assert {value: form(value) for value in texts} == texts


async def test_a_figure_reads_the_same_on_the_screen_in_a_table_and_in_the_report() -> None:
    trace = make_trace(24)
    of = statistics(trace, 1)
    own = [
        figures.kl(of.propagated.kld_mean),
        figures.kl(of.propagated.kld_99),
        figures.share(of.propagated.same_top),
        figures.deviation(of.propagated.dp_rms),
        figures.share(of.divergent),
    ]
    app = replay(trace)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("6")
        await settle(pilot)
        screen = view_text(app).split()
    page = to_html(trace)
    for text in own:
        assert text in screen
        assert f"<td>{text}</td>" in page
    (summary, _) = summarize(trace)
    cells = summary_cells(summary)
    # First step, share, cosines in h, z, p; mean, median and 99th percentile of KL.
    assert cells[1] == own[4]
    assert [cells[6], cells[8]] == own[:2]
    assert f"| {' | '.join(cells)} |" in to_markdown(trace)
    assert table_lines([summary], 200)[2].split() == [summary.name, *cells]


@pytest.mark.parametrize(
    ("least", "greatest", "scale"),
    [
        (0.02, 0.3, Decades(-2, 0)),
        (0.1, 1.0, Decades(-1, 0)),
        # A single value has a decade, and a long scale is cut below.
        (1.0, 1.0, Decades(-1, 0)),
        (0.05, 0.05, Decades(-2, -1)),
        (5e-324, 2.0, Decades(-5, 1)),
    ],
)
def test_a_scale_is_as_short_as_whole_decades_can_be(
    least: float, greatest: float, scale: Decades
) -> None:
    assert decades_around(least, greatest) == scale
    assert decades_around(least, greatest, 3) == (max(scale.low, scale.high - 3), scale.high)


def test_a_value_has_its_place_in_a_scale_and_none_lies_outside() -> None:
    scale = Decades(-2, 1)
    assert [scale.share(value) for value in (0.01, 10.0, 100.0, 0.0, -1.0)] == [
        *[0.0, 1.0, 4 / 3, -math.inf, -math.inf]
    ]
    assert [scale.exponent(value) for value in (0.1, 1e9, 1e-9, 0.0, -1e-17)] == [-1, 1, -2, -2, -2]
    assert [power_of_ten(exponent) for exponent in range(-4, 4)] == [
        *["1e-4", "1e-3", "0.01", "0.1", "1", "10", "100", "1e3"]
    ]
