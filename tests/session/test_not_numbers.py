"""A lane whose logits are not numbers chose nothing, and everything that shows it says so."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from prunetui.engine.measure.step_numbers import StepNumbers
from prunetui.engine.measure.step_reduction import StepRequest
from prunetui.engine.model.outputs import Outputs
from prunetui.engine.options import Options
from prunetui.engine.session.session import open_session
from prunetui.engine.trace.analysis.collapse import find_collapse
from prunetui.engine.trace.analysis.statistics import statistics
from prunetui.engine.trace.analysis.summary import summarize
from prunetui.engine.trace.analysis.theory import fit
from prunetui.engine.trace.divergence import chosen_tokens, differs, first_divergence
from prunetui.engine.trace.export.formats import to_csv, to_json
from prunetui.engine.trace.export.html import to_html
from prunetui.engine.trace.export.markdown import to_markdown
from prunetui.engine.trace.file import read_trace
from prunetui.engine.trace.records import Drift, Sampling
from prunetui.engine.trace.trace import Trace
from prunetui.tui.views.catalog import VIEWS
from prunetui.tui.views.theory import TheoryTable

from ..support.measures import numbers_and_tokens
from ..support.models import END, make_model, make_tokenizer
from ..support.screens import inspector, panel_text, replay, settle
from ..support.steps import drift_of, present, token_of, whole
from ..support.traces import make_header, make_step, make_trace, part_broken

GREEDY = Sampling(temperature=0.0, top_k=0, top_p=1.0, seed=0, max_new_tokens=9, ignore_eos=False)
NAN, INF = torch.nan, torch.inf


# -- which logits are not numbers -----------------------------------------------------------------


def numbers_of(z: torch.Tensor, lanes: int | None = None) -> StepNumbers:
    streams = torch.ones(3, len(z), 4, dtype=z.dtype)
    request = StepRequest(lanes or len(z), 4, torch.tensor([1]))
    return numbers_and_tokens(Outputs(streams[-1], z, streams), GREEDY, 0, request)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [3, 200, 3000])
def test_logits_without_a_softmax_are_not_numbers(dtype: torch.dtype, size: int) -> None:
    torch.manual_seed(0)
    z = torch.randn(8, size).to(dtype)
    z[1, size - 1] = NAN
    z[2, 0] = INF
    z[3] = -INF
    z[4, 1:] = -INF
    z[5, 2] = -INF
    z[6] = NAN
    z[7] = 0
    numbers = numbers_of(z)
    assert numbers.not_numbers == [False, True, True, True, False, False, True, False]
    for lane, broken in enumerate(numbers.not_numbers):
        figures = numbers.probs[lane], numbers.logprobs[lane], numbers.entropies[lane]
        assert (None in figures) == broken
        assert {value is None for value in numbers.top_probs[lane]} == {broken}
        assert (numbers.answer_logprobs[lane] == [None]) == (broken or lane == 4)
        if lane:
            drift = Drift(**numbers.drift[lane - 1])
            assert drift.not_comparable == broken
            assert drift.cos_h == 1
            if broken:
                shown = {name for name, value in msgspec.structs.asdict(drift).items() if value}
                assert shown <= {"cos_h", "not_comparable"}
            else:
                assert drift.kl is not None or lane in (4, 5)


def test_nothing_compares_with_a_baseline_of_no_numbers() -> None:
    z = torch.randn(3, 50)
    z[0, 7] = NAN
    numbers = numbers_of(z)
    assert numbers.not_numbers == [True, False, False]
    assert [drift["not_comparable"] for drift in numbers.drift] == [True, True]
    assert numbers.probs[1] is not None


def test_a_row_on_the_baselines_tokens_is_measured_by_itself() -> None:
    z = torch.randn(3, 50)
    z[2, 7] = NAN
    numbers = numbers_of(z, lanes=2)
    assert numbers.not_numbers == [False, False]
    assert ["not_comparable" in drift for drift in numbers.drift] == [False, True]


# -- what a session records -----------------------------------------------------------------------


def save(folder: Path, value: float | None = None) -> Path:
    model = make_model("llama")
    if value is not None:
        model.model.layers[2].mlp.down_proj.weight[3, 4] = value
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("broken")
    return {
        "fine": save(folder / "fine"),
        "nan": save(folder / "nan", NAN),
        "inf": save(folder / "inf", INF),
    }


def record(broken: dict[str, Path], tmp_path: Path, model: str, **options: Any) -> Trace:
    path = tmp_path / "a.trace.jsonl"
    variants = tuple(f"{name}={broken[name]}" for name in ("nan", "inf"))
    settings: dict[str, Any] = {
        "model": str(broken[model]),
        "prompt": "Twelve bytes",
        "max_new_tokens": 5,
    }
    settings |= {"variants": (*variants, "control"), "answers": ("A", "B"), "lens": True}
    session = open_session(Options(**(settings | options)), path, lambda *_: None)
    while session.finished is None:
        session.step()
    session.close()
    return read_trace(path)


@pytest.mark.parametrize("context", ["free", "forced", "both"])
def test_a_lane_of_no_numbers_neither_says_nor_ends(broken, tmp_path: Path, context: str) -> None:
    # The first token of an argmax of NaN: as if it had said its end.
    assert END == 0
    trace = record(broken, tmp_path, "fine", context=context, ignore_eos=False)
    assert len(trace.steps) == 5
    for step in trace.steps:
        assert [token.not_numbers for token in whole(step.lanes)] == [False, True, True, False]
        for token in whole(step.lanes[1:3]):
            assert (token.text, token.prob, token.entropy, token.ended) == ("", None, None, False)
        assert [drift.not_comparable for drift in whole(step.drift)] == [True, True, False]
        if step.local:
            assert [drift.not_comparable for drift in whole(step.local)] == [True, True, False]
        assert {*present(step.candidates.probs[1])} == {None}
        assert len(step.candidates.tokens) == 10
    assert trace.text(1) == ""
    assert trace.marked_text(1) == "⟨not numbers ×5⟩"


def test_a_baseline_of_no_numbers_is_said_too(broken, tmp_path: Path) -> None:
    trace = record(broken, tmp_path, "nan", variants=("control", f"fine={broken['fine']}"))
    for step in trace.steps:
        assert [token.not_numbers for token in whole(step.lanes)] == [True, True, False]
        assert all(drift.not_comparable for drift in whole(step.drift))
        assert (differs(step, 1), differs(step, 2)) == (False, True)
    assert trace.marked_text(0) == "⟨not numbers ×5⟩"
    assert trace.text(2) != ""


def test_a_lane_of_no_numbers_can_be_resumed_and_forced(broken, tmp_path: Path) -> None:
    trace = record(broken, tmp_path, "fine")
    options = msgspec.structs.replace(present(trace.header.options), max_new_tokens=8, lens=False)
    session = open_session(options, None, lambda *_: None, trace)
    step = session.step()
    assert token_of(step, 1).not_numbers
    step = session.force(2, {1: 35})
    token = token_of(step, 1)
    assert token.forced
    assert token.text == make_tokenizer().decode([35])
    assert session.trace.marked_text(1) == "⟨not numbers ×2⟩" + token.text
    session.close()


# -- what is shown --------------------------------------------------------------------------------


def test_means_leave_such_steps_out_and_say_how_many() -> None:
    unbroken, broken = make_trace(10), part_broken()
    one, two = summarize(broken)
    kl = [present(drift_of(unbroken.steps[n]).kl) for n in (0, 1, 2, 3, 4, 5, 8)]
    assert one.kl_mean == pytest.approx(sum(kl) / 7)
    assert (one.compared, one.not_comparable) == (10, 3)
    assert (two.compared, two.not_comparable) == (10, 0)
    assert two == summarize(unbroken)[1]
    of = statistics(broken, 1).propagated
    assert (of.steps, of.not_comparable, of.kld_mean) == (7, 3, one.kl_mean)
    assert of.same_top == pytest.approx(4 / 7)
    assert fit(broken.steps, 1, "kl").steps == [0, 1, 2, 3, 4, 5, 8]
    text = to_markdown(broken)
    assert "`drop:attn=1`: not numbers at 3 of 10 steps, which are left out of its means." in text
    assert text.count("not numbers at") == 1


def test_no_measure_is_shown_where_no_step_has_any() -> None:
    text = to_markdown(part_broken(5, (0, 1, 2, 3, 4)))
    assert f"| `drop:attn=1` | 0 | 100.0% | – |{' not numbers |' * 6}" in text
    assert "not numbers at 5 of 5 steps, which have no measures" in text
    assert "⟨not numbers ×5⟩" in text


def test_what_chose_nothing_differs_and_repeats_nothing() -> None:
    trace = part_broken(40, tuple(range(2, 40)))
    assert first_divergence(trace.steps, 1) == 2
    assert all(differs(step, 1) for step in trace.steps[2:])
    assert find_collapse(trace.steps, 1) is None
    assert len(chosen_tokens(trace.steps, 1)) == 40
    both = part_broken(40, tuple(range(40)), lane=0)
    assert all(differs(step, 1) for step in both.steps)


def test_exports_tell_it_from_other_nulls() -> None:
    trace = part_broken()
    rows = [*csv.DictReader(io.StringIO(to_csv(trace)))]
    flagged = [(row["step"], row["lane"]) for row in rows if row["not_numbers"] == "1"]
    assert flagged == [("6", "1"), ("7", "1"), ("9", "1")]
    assert [(r["step"], r["lane"]) for r in rows if r["not_comparable"] == "1"] == flagged
    document = json.loads(to_json(trace))
    assert [step["lanes"][1]["not_numbers"] for step in document["steps"]].count(True) == 3
    page = to_html(trace)
    assert '<span class="other">⟨not numbers ×2⟩</span>' in page
    assert '<span class="other">⟨not numbers⟩</span>' in page
    assert "<td>left out: not numbers</td><td>3</td><td>0</td>" in page


def test_parquet_tells_it_from_other_nulls() -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    from prunetui.engine.trace.export.formats import to_parquet

    table = pq.read_table(io.BytesIO(to_parquet(part_broken()))).to_pylist()
    flagged = [(row["step"], row["lane"]) for row in table if row["not_numbers"]]
    assert flagged == [(6, 1), (7, 1), (9, 1)]
    assert [row["not_comparable"] for row in table if row["lane"] == 0][:2] == [None, None]


def test_a_trace_from_before_reads_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    step = msgspec.json.encode(make_step(0))
    for new in (b',"not_numbers":false', b',"not_comparable":false'):
        assert new in step
        step = step.replace(new, b"")
    path.write_bytes(msgspec.json.encode(make_header()) + b"\n" + step + b"\n")
    assert read_trace(path).steps == [make_step(0)]


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
@pytest.mark.parametrize("lane", [0, 1])
async def test_screens_say_it(size: tuple[int, int], lane: int) -> None:
    app = replay(part_broken(10, (6, 7, 9), lane=lane))
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        assert "⟨not numbers⟩×" in panel_text(app, "#text")
        assert "not numbers" in panel_text(app, "#candidates")
        assert panel_text(app, "#drift").count(" not numbers") >= 4
        assert not any(
            line.rstrip().endswith(("–", "n/a")) for line in panel_text(app, "#drift").split("\n")
        )
        said = {}
        for view, _, _ in VIEWS:
            inspector(app).action_view(view)
            await settle(pilot)
            said[view] = "\n".join(
                panel_text(app, f"#{panel.id}")
                if panel.id
                else "\n".join(panel.render_line(y).text for y in range(panel.size.height))
                for panel in inspector(app).query_one(f"#{view}").query("Panel")
                if panel.is_on_screen
            )
        for view in ("drift-view", "theory", "alignment", "statistics"):
            assert "not numbers" in said[view], view


async def test_theory_says_nothing_of_estimates_that_there_are_not() -> None:
    app = replay(part_broken(5, tuple(range(5))))
    async with app.run_test(size=(120, 40)) as pilot:
        inspector(app).action_view("theory")
        await settle(pilot)
        table = inspector(app).query_one(TheoryTable)
        lines = [table.render_line(y).text for y in range(table.size.height)]
        assert not any("holds" in line for line in lines)
        assert lines[-1].startswith("No step has an estimate to compare.")
