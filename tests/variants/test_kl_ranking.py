"""Sublayers that are dropped by KL(p ‖ q), measured with each of them dropped too."""

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from prunetui.engine.errors import UserError
from prunetui.engine.measure.drift import kl
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.model.kl_divergence import kl_divergence
from prunetui.engine.options import Options
from prunetui.engine.progress import Cancelled, Progress
from prunetui.engine.results.records import Settings
from prunetui.engine.sweep.jobs import plan
from prunetui.engine.variants.builder import VariantBuilder, open_builder
from prunetui.engine.variants.option_checks import check_options
from prunetui.engine.variants.pruning.ranking import known_drops, least_divergent
from prunetui.engine.variants.recipes import Drop, parse
from torch import Tensor
from transformers import PreTrainedModel

from ..support.models import make_model, make_tokenizer, save_model_directory, zero_output

DEPTH = 4
TEXT = "Pack my box with five dozen liquor jugs. How vexingly quick daft zebras jump! " * 2


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return save_model_directory(tmp_path / "tiny")


def builder(
    model: Path, progress: Progress = lambda *_: None, *, length: int = 24, text: Path | None = None
) -> VariantBuilder:
    options = Options(
        model=str(model),
        calibration=text and str(text),
        calibration_samples=2,
        calibration_length=length,
    )
    return open_builder(options, progress)


def log_probabilities(
    model: PreTrainedModel, windows: list[Tensor], attention: set[int], mlp: set[int]
) -> np.ndarray:
    """Of stock transformers with zeroed output projections, float64 [tokens, vocabulary]."""
    stock = make_model("llama")
    stock.load_state_dict(model.state_dict())
    for layer in attention:
        zero_output(stock, layer, "attn")
    for layer in mlp:
        zero_output(stock, layer, "mlp")
    with torch.inference_mode():
        z = torch.cat([stock(input_ids=window[None]).logits[0] for window in windows])
    logits = z.double().numpy()
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def reference(
    model: PreTrainedModel,
    pruned: PreTrainedModel,
    windows: list[Tensor],
    dropped: Dropped,
    kind: str,
    run: int = 1,
) -> dict[tuple[tuple[int, ...], tuple[int, ...]], float]:
    """Mean KL by the layers of attention and of MLP that are dropped in addition."""
    log_p = log_probabilities(model, windows, set(), set())
    numbers = {}
    for start in range(DEPTH - run + 1):
        layers = {*range(start, start + run)}
        attention = layers if kind in ("attn", "block") else set()
        mlp = layers if kind in ("mlp", "block") else set()
        if attention <= dropped.attention and mlp <= dropped.mlp:
            continue
        log_q = log_probabilities(
            pruned, windows, {*dropped.attention, *attention}, {*dropped.mlp, *mlp}
        )
        key = (*sorted(attention),), (*sorted(mlp),)
        numbers[key] = float((np.exp(log_p) * (log_p - log_q)).sum(axis=-1).mean())
    return numbers


def test_kl_of_every_sublayer_is_that_of_stock_models(tiny: Path) -> None:
    build = builder(tiny)
    model, windows = build.baseline.model, build.calibration.windows()
    measured = build.baseline_kl()
    assert [*measured] == ["attn", "mlp", "block"]
    for kind, values in measured.items():
        expected = [*reference(model, model, windows, Dropped(), kind).values()]
        assert values == pytest.approx(expected, abs=1e-6)


def least(numbers: dict, count: int) -> tuple[list[int], list[int]]:
    chosen = sorted(numbers, key=lambda key: numbers[key])[:count]
    attention, mlp = ({*itertools.chain(*layers)} for layers in zip(*chosen, strict=True))
    return sorted(attention), sorted(mlp)


@pytest.mark.parametrize(
    # Joint ranks both, each against the other.
    "kind",
    [*(pytest.param(kind, marks=pytest.mark.slow) for kind in ("attn", "mlp")), "joint", "block"],
)
def test_the_least_divergent_are_dropped(tiny: Path, kind: str) -> None:
    """At once, and greedily by hand: each measured with the earlier ones dropped."""
    build = builder(tiny)
    model, windows = build.baseline.model, build.calibration.windows()

    def measured(dropped: Dropped) -> dict:
        kinds = ("attn", "mlp") if kind == "joint" else (kind,)
        numbers = [reference(model, model, windows, dropped, each) for each in kinds]
        return dict(itertools.chain(*(each.items() for each in numbers)))

    at_once = build.build(parse(f"drop:{kind}=2,by=kl"))
    assert at_once.dropped.lists == least(measured(Dropped()), 2)
    dropped = Dropped()
    for _ in range(3):
        attention, mlp = least(measured(dropped), 1)
        dropped |= Dropped(frozenset(attention), frozenset(mlp))
    assert build.build(parse(f"drop:{kind}=3,iterative,by=kl")).dropped == dropped


def test_a_run_is_the_one_whose_dropping_moves_least(tiny: Path) -> None:
    build = builder(tiny)
    model, windows = build.baseline.model, build.calibration.windows()
    numbers = reference(model, model, windows, Dropped(), "block", run=2)
    made = build.build(parse("drop:block=2,by=kl,consecutive"))
    assert made.dropped.lists == least(numbers, 1)
    with pytest.raises(UserError, match="finds no run of 2 layers that are still there"):
        build.build(parse("drop:block=[1,2]+drop:block=2,by=kl,consecutive"))


def test_what_parts_before_leave_is_measured_against_the_unpruned_model(
    tiny: Path, tmp_path: Path
) -> None:
    """On the text of a file: as many samples as of the calibration text."""
    text = tmp_path / "plain, text+.txt"
    text.write_text(TEXT)
    build = builder(tiny)
    tokens = torch.tensor(make_tokenizer()(TEXT)["input_ids"])
    windows = [tokens[:24], tokens[24:48]]
    pruned = build.build(parse("magnitude:0.6+drop:attn=[1]"))
    numbers = reference(
        build.baseline.model, pruned.group.model, windows, Dropped(frozenset({1})), "attn"
    )
    made = build.build(parse(f"magnitude:0.6+drop:attn=[1]+drop:attn=2,by=kl:'{text}'"))
    expected, _ = least(numbers, 2)
    assert made.dropped.lists == (sorted({1, *expected}), [])
    with pytest.raises(UserError, match=r"calibration text .*none\.txt"):
        check_options(Options(variants=(f"drop:attn=1,by=kl:{tmp_path}/none.txt",)))


def test_kl_is_that_of_the_measures() -> None:
    torch.manual_seed(0)
    x, y = 9 * torch.randn(40, 300), 9 * torch.randn(40, 300)
    p = torch.softmax(x.double(), dim=-1)
    sums = (torch.logsumexp(x.double(), -1), torch.logsumexp(y.double(), -1))
    mean_d = (p * (y.double() - x.double())).sum(dim=-1)
    expected = kl(mean_d.numpy(), sums[0].numpy(), sums[1].numpy(), 1.0)
    log_p = torch.log_softmax(x.double(), dim=-1)
    assert kl_divergence(log_p, y).numpy() == pytest.approx(expected, abs=1e-12)


def test_tokens_that_a_model_never_says() -> None:
    """Padded vocabularies have logits of minus infinity."""
    x, y = torch.tensor([[0.0, 1.0, -math.inf]] * 3), torch.tensor([[1.0, 0.0, 2.0]] * 3)
    y[1, 2] = -math.inf
    y[2, 1] = -math.inf
    log_p = torch.log_softmax(x.double(), dim=-1)
    none, same, never = kl_divergence(log_p, y).tolist()
    p = 1 / (1 + math.e)
    log_q = 1 - math.log(math.e + 1 + math.e**2), -math.log(math.e + 1 + math.e**2)
    entropy = p * math.log(p) + (1 - p) * math.log(1 - p)
    assert none == pytest.approx(entropy - p * log_q[0] - (1 - p) * log_q[1], abs=1e-12)
    assert same == pytest.approx((1 - 2 * p) * 1.0, abs=1e-12)
    assert never == math.inf


def test_what_is_not_finite_matters_most() -> None:
    def one(layer: int) -> Dropped:
        return Dropped(frozenset({layer}))

    part = Drop("attn", 2, by="kl")
    measured = [(one(0), None), (one(1), 9.0), (one(2), -1e-9), (one(3), None)]
    assert least_divergent(part, 2, measured) == one(1) | one(2)
    assert least_divergent(part, 3, measured) == one(0) | one(1) | one(2)
    with pytest.raises(UserError, match=r"on its text no KL\(p ‖ q\) is finite"):
        least_divergent(part, 2, [(one(0), None)])


def test_an_overflow_is_no_number(tiny: Path) -> None:
    build = builder(tiny)
    build.baseline.model.get_parameter("model.norm.weight").data.fill_(math.nan)
    assert build.baseline_kl() == dict.fromkeys(("attn", "mlp", "block"), [None] * DEPTH)


def test_a_measurement_is_kept_by_all_that_it_depends_on(tiny: Path, tmp_path: Path) -> None:
    kept = Path(os.environ["XDG_CACHE_HOME"]) / "prunetui" / "kl"
    text = tmp_path / "text.txt"
    text.write_text(TEXT)

    def files() -> int:
        return len([*kept.glob("*/kl.json")])

    recipe = f"drop:attn=1,by=kl:{text}+magnitude:0.5+drop:mlp=1,by=kl"
    builder(tiny).build(parse(recipe))
    assert files() == 2
    builder(tiny).build(parse(recipe))
    assert files() == 2
    builder(tiny, length=23).build(parse(recipe))
    assert files() == 4
    text.write_text(TEXT[::-1])
    builder(tiny).build(parse(recipe))
    assert files() == 6
    # Weights that were pruned on the calibration text, measured on another.
    calibrated = f"wanda:0.5+drop:attn=1,by=kl:{text}"
    other = tmp_path / "other.txt"
    other.write_text("Bees make wax. " * 9)
    for calibration in (None, other):
        builder(tiny, text=calibration).build(parse(calibrated))
    assert files() == 8


def test_a_cancelled_measurement_leaves_no_file_and_no_hook(tiny: Path) -> None:
    fractions: list[float] = []

    def stop(doing: str, done: float | None) -> None:
        if doing == "ranking by KL" and done is not None:
            fractions.append(done)
            if done > 0.5:
                raise Cancelled

    build = builder(tiny, stop)
    before = build.baseline.model(input_ids=torch.arange(9)[None]).logits
    with pytest.raises(Cancelled):
        build.build(parse("drop:attn=2,by=kl,iterative"))
    assert fractions[0] == 0
    assert fractions == sorted(fractions)
    kept = Path(os.environ["XDG_CACHE_HOME"]) / "prunetui" / "kl"
    assert len([*kept.iterdir()]) == 1, "the first of two, and no half of the second"
    after = build.baseline.model(input_ids=torch.arange(9)[None]).logits
    assert torch.equal(before, after)


def test_only_a_model_tells_what_is_dropped_by_kl(tiny: Path) -> None:
    similarity = builder(tiny).baseline_similarity()
    assert known_drops(parse("drop:attn=2"), similarity) is not None
    assert known_drops(parse("drop:attn=2,by=kl"), similarity) is None


def test_jobs_of_a_sweep_are_named_by_the_content_of_texts(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    recipes = [parse(f"drop:attn=1,by=kl:{text}")]

    def key() -> str:
        (job,) = plan(Options(), Settings(), [0], recipes)
        return job.key

    text.write_text(TEXT)
    first = key()
    assert key() == first
    text.write_text(TEXT + "!")
    assert key() != first
