"""HTML export: one well-formed page, complete and safe."""

import re
import shlex

import msgspec
from prunetui.engine.options import Options
from prunetui.engine.trace.analysis.statistics import statistics
from prunetui.engine.trace.export.html import command, to_html
from prunetui.engine.trace.export.html_chart import chart
from prunetui.engine.trace.export.markdown import to_markdown
from prunetui.engine.trace.figures import kl, ratio, share
from prunetui.engine.trace.records import Drift

from ..support.html import Page
from ..support.steps import drift_of
from ..support.traces import make_step, make_trace, with_local


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    trace = with_local(make_trace(40))
    page = Page(to_html(trace))
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not {"src", "href", "style", "onclick", "onload"} & set(page.attributes)
    # Two variants, four measures.
    assert page.tags.count("svg") == 8
    assert page.tags.count("circle") == 8 * 40
    of = statistics(trace, 2)
    assert of.local is not None
    for text in (
        kl(of.local.kld_mean),
        kl(of.propagated.kld_max),
        ratio(of.local.ppl_ratio),
        share(of.divergent),
    ):
        assert f">{text}<" in to_html(trace)


def test_hostile_text_stays_text() -> None:
    trace = make_trace(30)
    evil = "<script>alert(1)</script>\x1b]52;c;aGk=\x07"
    prompt = msgspec.structs.replace(trace.header.prompt, text=evil)
    lanes = [msgspec.structs.replace(lane, name=f"{evil}&amp;") for lane in trace.header.lanes]
    trace.header = msgspec.structs.replace(trace.header, prompt=prompt, lanes=lanes)
    written = to_html(trace)
    page = Page(written)
    assert "script" not in page.tags
    assert "\x1b" not in written
    assert "<script>alert(1)</script>" in page.text
    assert "</script>␛]52;c;aGk=␇&amp;" in page.text


def test_what_differs_is_marked() -> None:
    trace = make_trace(10)
    page = to_html(trace)
    # Lane 1 leaves the baseline at step 4, lane 2 at step 8.
    assert page.count('class="other first"') == 2
    assert page.count('class="other') == 6 + 2


def test_an_empty_trace_and_one_without_variants_have_a_page() -> None:
    for trace in (make_trace(0), make_trace(3, variants=0)):
        assert Page(to_html(trace)).open == []


def test_the_command_makes_it_again() -> None:
    options = Options(
        model="my model",
        variants=("drop:attn=[1,2]", "a b=wanda:0.5"),
        prompt="It's; `rm`",
        answers=(" A", " B"),
        raw=True,
        temperature=0.5,
    )
    assert shlex.split(command(options)) == [
        *("prunetui", "record", "--model", "my model"),
        *("--variant", "drop:attn=[1,2]", "--variant", "a b=wanda:0.5"),
        *("--prompt", "It's; `rm`", "--raw", "--temperature", "0.5", "--answers", " A, B"),
    ]
    assert command(Options()) == "prunetui record"
    # The baseline alone, which the screen can decode, would be the default variants.
    assert command(Options(variants=())) == "prunetui record --variant control"


def ticks(svg: str) -> list[str]:
    """Texts of the y axis, from below."""
    return re.findall(r'text-anchor="end">([^<]*)<', svg)


def drifts(**values: list[float | None]) -> list[Drift | None]:
    """Drift with these measures, a list of values each."""
    base = drift_of(make_step(3))
    return [
        msgspec.structs.replace(base, **dict(zip(values, row, strict=True)))
        for row in zip(*values.values(), strict=True)
    ]


def test_each_axis_has_its_numbers_and_a_title_with_space_direction_and_unit() -> None:
    own = drifts(kl=[0.03, None, 41.0, 0.5], cos_h=[0.99, 0.5, 0.2, 0.9])
    svg = chart("kl", own, [None] * 4, 2)
    assert ticks(svg) == ["0.01", "0.1", "1", "10", "100"]
    assert ">KL(p‖q) in nats, p baseline, q variant, log scale<" in svg
    assert ">step<" in svg
    assert re.findall(r'text-anchor="middle">(\d+)<', svg) == ["0", "1", "2", "3"]
    assert svg.count('class="grid one"') == 1
    # A line that stops at what is not finite, and goes on after it.
    (path,) = re.findall(r'class="line kl" d="([^"]*)"', svg)
    assert [part.count(",") for part in path.split("M")[1:]] == [1, 2]
    assert 'class="diverges"' in svg
    assert 'class="diverges"' not in chart("kl", own, [None] * 4, None)
    svg = chart("h", own, [None] * 4, None)
    assert ticks(svg) == ["0.01", "0.1", "1"]
    assert ">1 − cos h, log scale<" in svg


def test_what_is_outside_an_axis_is_drawn_at_its_end_and_the_axis_says_so() -> None:
    own = drifts(cos_z=[1.0, 0.9, -0.7], kl=[0.0, 0.0, 0.0])
    assert ticks(chart("z", own, [], None)) == ["≤ 0.1", "≥ 1"]
    assert ticks(chart("kl", own, [], None)) == ["≤ 0.1", "1"]
    (path,) = re.findall(r'class="line z" d="([^"]*)"', chart("z", own, [], None))
    assert [point.split(",")[1] for point in re.split("h0L|L", path)] == ["154.0", "154.0", "24.0"]
    # No value at all, and no step at all.
    for drift in (drifts(kl=[None, None]), []):
        assert 'class="line kl" d=""' in chart("kl", drift, [], None)


def test_the_reports_say_what_was_decoded_and_how() -> None:
    trace = make_trace(8)
    lanes = [
        *trace.header.lanes[:2],
        msgspec.structs.replace(
            trace.header.lanes[2], dropped_mlp=[0, 2], sparsity=0.5, pattern="2:4"
        ),
    ]
    sampling = msgspec.structs.replace(
        trace.header.sampling, temperature=0.7, top_k=50, top_p=0.9, seed=11
    )
    trace.header = msgspec.structs.replace(trace.header, lanes=lanes, sampling=sampling)
    facts = [
        "tiny, llama, 3 layers, 0.01235 M parameters",
        "float32 on cpu",
        "sampled at T = 0.7, top-k 50, top-p 0.9, seed 11",
        "free: each lane reads its own tokens",
        "8, of at most 64",
        "0.0001: the most that a logit moves when the baseline is a row of a batch instead of "
        "alone",
        "2026-01-01T00:00:00Z",
        "prunetui 0.1.0",
    ]
    page, text = to_html(trace), to_markdown(trace)
    for fact in facts:
        assert f"<td>{fact}</td>" in page
        assert f"| `{fact}` |" in text
    row = ["drop:mlp=1", "drop:mlp=1", "1", "0, 2", "50.0% (2:4)"]
    assert "".join(f"<td>{cell}</td>" for cell in row) in page
    assert f"| {' | '.join(f'`{cell}`' for cell in row)} |" in text
    greedy = to_html(make_trace(1))
    assert "greedy, measured at T = 1, top-k off, top-p 1, seed 0" in greedy
