"""Statistics, fits and subspace drift of a trace against direct formulas in float64."""

import itertools
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from prunetui.engine.measure.step_reduction import StepReduction
from prunetui.engine.model.outputs import Outputs
from prunetui.engine.options import Options
from prunetui.engine.session.session import open_session
from prunetui.engine.trace.analysis.collapse import (
    WINDOW,
    compression_ratio,
    lane_collapse,
    repeated_share,
)
from prunetui.engine.trace.analysis.statistics import Statistics, statistics, text_measures
from prunetui.engine.trace.analysis.subspace import choice, choices, subspace_drift
from prunetui.engine.trace.analysis.theory import FAILS, fit
from prunetui.engine.trace.records import AnswerNumbers, Drift
from prunetui.engine.trace.trace import Trace

from ..support.models import save_model_directory
from ..support.traces import make_trace, with_local


def local(trace: Trace, lane: int) -> list[Drift]:
    return [drift for step in trace.steps if (drift := step.local_of(lane))]


def logprobs(trace: Trace) -> list[float]:
    return [step.lanes[0].logprob for step in trace.steps if step.lanes[0]]  # pyright: ignore[reportReturnType]


@pytest.fixture(scope="module")
def trace() -> Trace:
    return with_local(make_trace(40))


# -- statistics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lane", [1, 2])
def test_statistics_are_those_of_numpy(trace: Trace, lane: int) -> None:
    of = statistics(trace, lane)
    own = [drift for step in trace.steps if (drift := step.drift_of(lane))]
    assert of.local is not None
    for got, drifts in ((of.propagated, own), (of.local, local(trace, lane))):
        kl = np.array([drift.kl for drift in drifts], dtype=np.float64)
        dp = np.array([drift.dp for drift in drifts], dtype=np.float64)
        expected = {
            "steps": 40,
            "kld_mean": kl.mean(),
            "kld_median": np.median(kl),
            "kld_99": np.percentile(kl, 99),
            "kld_999": np.percentile(kl, 99.9),
            "kld_max": kl.max(),
            "same_top": np.mean([drift.top1 for drift in drifts]),
            "dp_mean": dp.mean(),
            "dp_rms": np.sqrt((dp**2).mean()),
            "dp_1": np.percentile(dp, 1),
            "dp_5": np.percentile(dp, 5),
            "dp_95": np.percentile(dp, 95),
            "dp_99": np.percentile(dp, 99),
        }
        assert {key: getattr(got, key) for key in expected} == pytest.approx(expected, rel=1e-12)
    assert of.first_divergence == 4 * lane
    assert of.divergent == (40 - 4 * lane) / 40
    assert of.seconds == pytest.approx(0.04)
    assert of.read == 500_000_000


def test_perplexity_is_compared_on_the_same_text_alone(trace: Trace) -> None:
    of = statistics(trace, 1)
    assert of.propagated.ppl_ratio is None
    logq = np.array([drift.logq for drift in local(trace, 1)])
    expected = np.exp(-logq.mean()) / np.exp(-np.array(logprobs(trace)).mean())
    assert of.local is not None
    assert of.local.ppl_ratio == pytest.approx(expected, rel=1e-12)
    forced = Trace(msgspec.structs.replace(trace.header, context="forced"))
    forced.steps = make_trace(40).steps
    assert statistics(forced, 1).propagated.ppl_ratio is not None
    assert statistics(forced, 1).local is None


def test_a_trace_without_steps_has_no_statistics() -> None:
    of: Statistics = statistics(make_trace(0), 1)
    assert (of.propagated.steps, of.propagated.kld_mean, of.divergent) == (0, None, None)
    assert (of.first_divergence, of.text.collapse.start, of.seconds) == (None, None, None)


def test_a_number_that_is_not_finite_spoils_its_mean() -> None:
    spoiled = make_trace(8)
    drift = [msgspec.structs.replace(d, kl=None) if d else None for d in spoiled.steps[3].drift]
    spoiled.steps[3] = msgspec.structs.replace(spoiled.steps[3], drift=drift)
    of = statistics(spoiled, 1)
    assert of.propagated.kld_mean is None
    assert of.propagated.dp_mean is not None


def test_a_lanes_text_is_measured_over_its_last_tokens() -> None:
    steps = make_trace(120).steps
    for number in range(60, 120):
        step = steps[number]
        token = step.lanes[1]
        assert token is not None
        stuck = msgspec.structs.replace(token, token=500 + number % 3, text="ab"[number % 2])
        ended = None if number >= 110 else stuck
        steps[number] = msgspec.structs.replace(step, lanes=[step.lanes[0], ended, step.lanes[2]])
    of = text_measures(steps, 1)
    window = [token for step in steps[110 - WINDOW : 110] if (token := step.lanes[1])]
    tokens = [token.token for token in window]
    assert of.collapse == lane_collapse(steps, 1)
    assert of.seq_rep == repeated_share(tokens)
    assert of.distinct == len({*itertools.pairwise(tokens)}) / WINDOW
    assert of.compression == compression_ratio("".join(token.text for token in window))
    assert of.entropy == pytest.approx(np.mean(np.array([token.entropy for token in window])))
    assert (text_measures([], 1).seq_rep, text_measures([], 1).entropy) == (0, None)


# -- theory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["h", "z", "p", "kl"])
def test_a_fit_is_of_one_steps_perturbation(trace: Trace, space: str) -> None:
    of = fit(trace.steps, 2, space)
    drifts = local(trace, 2)
    key = "est_kl" if space == "kl" else f"est_{space}"
    measured = np.array([d.kl if space == "kl" else 1 - getattr(d, f"cos_{space}") for d in drifts])
    estimated = np.array([getattr(d, key) for d in drifts])
    assert of.measured == pytest.approx(measured)
    assert of.estimated == pytest.approx(estimated)
    some = measured > 0
    errors = np.abs(estimated - measured)[some] / measured[some]
    assert of.errors == pytest.approx(errors)
    assert of.median_error == pytest.approx(np.median(errors))
    assert of.failing == (errors > FAILS).sum() > 0


def test_without_local_drift_the_propagated_one_is_fitted() -> None:
    trace = make_trace(10)
    expected = [d.kl for step in trace.steps if (d := step.drift[0])]
    assert fit(trace.steps, 1, "kl").measured == expected


# -- subspace -------------------------------------------------------------------------------------


def test_the_drift_among_answers_is_that_of_renormalised_probabilities() -> None:
    torch.manual_seed(1)
    z = torch.randn(2, 50, dtype=torch.float64) * 4
    tokens, temperature = [3, 17, 4, 40], 0.7
    logp = (z / temperature).log_softmax(-1)
    baseline, variant = (
        choice(AnswerNumbers(z=z[row, tokens].tolist(), logprob=logp[row, tokens].tolist()))
        for row in (0, 1)
    )
    assert baseline is not None
    assert variant is not None
    p, q = (z[row, tokens] / temperature for row in (0, 1))
    p, q = p.softmax(-1), q.softmax(-1)
    of = subspace_drift(baseline, variant)
    assert baseline.probs == pytest.approx(p.tolist(), rel=1e-12)
    assert of.kl == pytest.approx((p * (p / q).log()).sum().item(), rel=1e-10)
    assert of.cos_p == pytest.approx(torch.cosine_similarity(p, q, dim=0).item(), rel=1e-12)
    cosine = torch.cosine_similarity(z[0, tokens], z[1, tokens], dim=0)
    assert of.cos_z == pytest.approx(cosine.item(), rel=1e-12)
    assert baseline.answer == p.argmax().item()
    assert of.changed == (p.argmax() != q.argmax()).item()


def test_an_answer_that_is_not_finite_is_none() -> None:
    assert choice(AnswerNumbers(z=[1.0, None], logprob=[-1.0, -2.0])) is None
    assert choice(None) is None


@pytest.mark.parametrize("context", ["free", "both"])
def test_a_session_keeps_the_answers_logits(
    tmp_path: Path, context: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_model_directory(tmp_path / "tiny")
    options = Options(
        model=str(model),
        variants=("drop:mlp=[0,2]",),
        prompt="Twelve bytes",
        raw=True,
        max_new_tokens=3,
        ignore_eos=True,
        context=context,  # pyright: ignore[reportArgumentType]
        answers=("x", "y", "z"),
    )
    session = open_session(options, None, lambda *_: None)
    read: list[Outputs] = []
    reduce = StepReduction.__call__

    def watched(self: StepReduction, outputs: Outputs, *more: Any) -> Any:
        read.append(outputs)
        return reduce(self, outputs, *more)

    monkeypatch.setattr(StepReduction, "__call__", watched)
    step = session.step()
    header, (outputs,) = session.trace.header, read
    assert header.answers is not None
    assert header.answers.texts == ["x", "y", "z"]
    assert step.answers is not None
    for lane, numbers in enumerate(step.answers):
        z = outputs.z[lane].double()
        assert numbers is not None
        assert numbers.z == pytest.approx(z[header.answers.tokens].tolist())
        assert numbers.logprob == pytest.approx(z.log_softmax(-1)[header.answers.tokens].tolist())
    assert (step.local_answers is None) == (context == "free")
    later = session.step()
    baseline, variant, drift = choices(later, 1)
    assert baseline is not None
    assert variant is not None
    assert drift is (later.local or later.drift)[0]
    if later.local_answers:
        assert later.local_answers[0] is not None
        assert variant.z == later.local_answers[0].z
        assert not math.isnan(subspace_drift(baseline, variant).kl)
    session.restart(answers=("p", "q"))
    assert session.trace.header.answers is not None
    assert session.trace.header.answers.texts == ["p", "q"]
    assert session.step().answers is not None
