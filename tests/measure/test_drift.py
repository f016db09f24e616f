"""Every measure against its formula, written out in float64 with numpy, one variant at a time."""

from typing import Any

import numpy as np
import pytest
import torch
from prunetui.engine.measure import reductions
from prunetui.engine.measure.step_reduction import StepRequest
from prunetui.engine.model.outputs import Outputs
from prunetui.engine.trace.records import Sampling

from ..support.measures import measured, measures, numbers_and_tokens
from ..support.models import needs_kernels
from ..support.references import cos, softmax

LANES, HIDDEN, VOCABULARY = 4, 24, 500
GREEDY = Sampling(temperature=0.0, top_k=0, top_p=1.0, seed=0, max_new_tokens=1, ignore_eos=False)


def example(scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Variants `scale` away from the baseline, with an offset that softmax does not see."""
    generator = torch.Generator().manual_seed(3)
    h = torch.randn(1, HIDDEN, generator=generator) * 2
    z = torch.randn(1, VOCABULARY, generator=generator) * 4
    h = h + torch.cat([torch.zeros(1, HIDDEN), torch.randn(3, HIDDEN, generator=generator)]) * scale
    noise = torch.randn(3, VOCABULARY, generator=generator) + 1.5
    z = z + torch.cat([torch.zeros(1, VOCABULARY), noise]) * scale
    return h, z


def par_orth(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    d = y - x
    par = d @ x / (x @ x)
    return float(par), float(np.linalg.norm(d - par * x) / np.linalg.norm(x))


def expected(h: torch.Tensor, z: torch.Tensor, variant: int, T: float) -> dict[str, Any]:  # noqa: N803
    x_h, y_h = h[0].double().numpy(), h[variant].double().numpy()
    x, y = z[0].double().numpy(), z[variant].double().numpy()
    p, q = softmax(x / T), softmax(y / T)
    par_h, orth_h = par_orth(x_h, y_h)
    par_z, orth_z = par_orth(x, y)
    dz = y - x
    r = p**2 / (p @ p)
    return {
        "cos_h": cos(x_h, y_h),
        "cos_z": cos(x, y),
        "cos_p": cos(p, q),
        "cos_z_centred": cos(x - x.mean(), y - y.mean()),
        "par_h": par_h,
        "orth_h": orth_h,
        "par_z": par_z,
        "orth_z": orth_z,
        "est_h": orth_h**2 / 2,
        "est_z": orth_z**2 / 2,
        "est_p": (r @ dz**2 - (r @ dz) ** 2) / (2 * T**2),
        "kl": p @ (np.log(p) - np.log(q)),
        "kl_rev": q @ (np.log(q) - np.log(p)),
        "est_kl": (p @ dz**2 - (p @ dz) ** 2) / (2 * T**2),
        # Of the token that the baseline chose.
        "dp": q[p.argmax()] - p.max(),
        "logq": np.log(q[p.argmax()]),
    }


@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_kernels), False])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("scale", [1e-3, 0.3, 3.0])
def test_measures_equal_their_formulas(
    scale: float, temperature: float, compiled: bool, monkeypatch
) -> None:
    # The vocabulary is no multiple of the chunk.
    monkeypatch.setattr(reductions, "CHUNK", 128)
    if not compiled:
        monkeypatch.setattr(reductions, "backend_for", lambda *_: None)
    h, z = example(scale)
    found = measured(h, z, temperature)
    for variant in range(1, LANES):
        formulas = expected(h, z, variant, temperature)
        assert found.keys() == formulas.keys()
        for key, value in formulas.items():
            assert found[key][variant - 1] == pytest.approx(value, rel=1e-9, abs=1e-12), key


@pytest.mark.parametrize("scale", [1e-2, 1e-3])
def test_the_estimates_approach_what_they_estimate(scale: float) -> None:
    """Theorems 1 to 3: the relative error is of the order of the perturbation."""
    h, z = example(scale)
    m = {key: value[0] for key, value in measured(h, z, 1.0).items()}
    pairs = [
        (m["est_h"], 1 - m["cos_h"]),
        (m["est_z"], 1 - m["cos_z"]),
        (m["est_p"], 1 - m["cos_p"]),
        (m["est_kl"], m["kl"]),
    ]
    for estimate, exact in pairs:
        assert estimate == pytest.approx(exact, rel=5 * scale)


def test_kl_is_from_the_baseline_to_the_variant() -> None:
    """A variant that spreads out is punished by KL(p ‖ q) less than one that is sure and wrong."""
    sure, spread = torch.tensor([10.0, 0.0, 0.0]), torch.zeros(3)
    z = torch.stack([sure, spread])
    found = measured(torch.ones(2, 2), z, 1.0)
    p, q = softmax(sure.double().numpy()), np.full(3, 1 / 3)
    assert found["kl"].item() == pytest.approx(p @ np.log(p / q))
    assert found["kl_rev"].item() == pytest.approx(q @ np.log(q / p))
    assert found["kl_rev"].item() > found["kl"].item()


def test_equal_lanes_do_not_drift() -> None:
    h, z = torch.randn(1, HIDDEN), torch.randn(1, VOCABULARY)
    found = measured(h.repeat(2, 1), z.repeat(2, 1), 1.0)
    for key in ("cos_h", "cos_z", "cos_p", "cos_z_centred"):
        assert found[key].item() == pytest.approx(1, abs=1e-15)
    for key in ("par_h", "orth_h", "par_z", "orth_z", "est_h", "est_z", "kl", "kl_rev"):
        assert found[key].item() == pytest.approx(0, abs=1e-14)


def test_a_common_offset_of_the_logits_moves_cosine_but_not_probability() -> None:
    z = torch.randn(1, VOCABULARY)
    found = measured(torch.ones(2, 2), torch.cat([z, z + 3]), 1.0)
    assert found["cos_z"].item() < 0.5
    assert found["cos_z_centred"].item() == pytest.approx(1, abs=1e-6)
    assert found["kl"].item() == pytest.approx(0, abs=1e-6)


def test_entropy_margin_and_log_probability() -> None:
    h, z = example(1.0)
    found = measures(h, z, 0.7)
    for lane in range(LANES):
        p = softmax(z[lane].double().numpy() / 0.7)
        highest, second = sorted(z[lane].tolist())[:-3:-1]
        assert found.entropies[lane] == pytest.approx(-(p @ np.log(p)))
        assert found.margins[lane] == highest - second
        assert found.logprobs[lane, 1:].tolist() == pytest.approx(np.log(p).tolist())


def test_a_vocabulary_of_one_token() -> None:
    found = measures(torch.ones(2, 2), torch.tensor([[3.0], [4.0]]), 1.0)
    assert found.margins.tolist() == found.entropies.tolist() == [0, 0]
    assert found.probs.tolist() == [[1, 1], [1, 1]]


def test_probabilities_that_underflow_leave_every_measure_finite() -> None:
    z = torch.tensor([[0.0, 4000.0, -4000.0], [4000.0, 0.0, -4000.0]])
    found = measured(torch.eye(2), z, 1.0)
    assert found["kl"].item() == 4000
    assert found["cos_p"].item() == 0
    assert all(np.isfinite(value).all() for value in found.values())


@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_kernels), False])
def test_a_token_that_no_lane_can_choose_has_no_part_in_probabilities(
    compiled: bool, monkeypatch
) -> None:
    if not compiled:
        monkeypatch.setattr(reductions, "backend_for", lambda *_: None)
    h, z = example(0.3)
    masked = z.clone()
    masked[:, ::7] = -torch.inf
    found, kept = measured(h, masked, 0.7), measured(h, z[:, masked[0].isfinite()], 0.7)
    for key in ("cos_p", "est_p", "kl", "kl_rev", "est_kl"):
        assert found[key] == pytest.approx(kept[key], rel=1e-9), key
    assert np.isnan(found["cos_z"]).all()  # of infinite vectors


@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_kernels), False])
def test_a_token_that_only_the_baseline_can_choose_makes_kl_infinite(
    compiled: bool, monkeypatch
) -> None:
    if not compiled:
        monkeypatch.setattr(reductions, "backend_for", lambda *_: None)
    x, y = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, -torch.inf, 1.0])
    found = measured(torch.ones(2, 2), torch.stack([x, y]), 1.0)
    p, q = softmax(x.double().numpy()), softmax(y[[0, 2]].double().numpy())
    assert found["kl"].item() == np.inf
    assert found["kl_rev"].item() == pytest.approx(q @ np.log(q / p[[0, 2]]))


@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_kernels), False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dots_are_their_formulas(dtype: torch.dtype, compiled: bool, monkeypatch) -> None:
    if not compiled:
        monkeypatch.setattr(reductions, "backend_for", lambda *_: None)
    vectors = torch.randn(8, LANES, 1003).to(dtype)
    vectors[:, 1] = vectors[:, 0] * (1 + 2**-8)
    found = reductions.reduce_logits(
        Outputs(vectors[0], torch.randn(LANES, 50).to(dtype), vectors), 2, 1.0
    )
    dots = np.concatenate([found.h_dots.numpy()[:, None], found.stream_dots.numpy()], axis=1)
    wide = vectors.double().numpy().astype(np.longdouble)
    x, d = wide[:, :1], wide[:, 1:] - wide[:, :1]
    for product, (one, other) in zip(dots, ((x, x), (x, d), (d, d)), strict=True):
        exact, size = (each.sum(axis=-1) for each in (one * other, np.abs(one * other)))
        assert (np.abs(product - exact) <= 1e-14 * size).all()


def test_stream_cosines() -> None:
    streams = torch.randn(6, 3, 8)
    request = StepRequest(lanes=3, candidates=2, answers=torch.empty(0, dtype=torch.int64))
    outputs = Outputs(torch.randn(3, 8), torch.randn(3, 40), streams)
    numbers, _ = numbers_and_tokens(outputs, GREEDY, 0, request)
    for variant in (1, 2):
        assert len(numbers.layers[variant - 1]) == 5
        for point in range(1, 6):
            x, y = streams[point, 0].double().numpy(), streams[point, variant].double().numpy()
            assert numbers.layers[variant - 1][point - 1] == round(cos(x, y), 7)


def test_what_is_not_finite_is_none_and_the_rest_stands() -> None:
    z, streams = torch.randn(3, 40), torch.randn(5, 3, 8)
    z[1, 7] = streams[2, 2, 0] = torch.nan
    outputs = Outputs(streams[-1], z, streams)
    numbers, _ = numbers_and_tokens(outputs, GREEDY, 0, StepRequest(3, 2, torch.tensor([4])))
    assert numbers.tokens[1] == 7
    assert (numbers.logprobs[1], numbers.entropies[1], numbers.answer_logprobs[1]) == (
        None,
        None,
        [None],
    )
    broken, whole = numbers.drift
    assert {key for key, value in broken.items() if value is None} == {
        *("cos_z", "cos_p", "cos_z_centred", "par_z", "orth_z", "est_z"),
        *("est_p", "kl", "kl_rev", "est_kl", "dp", "logq"),
    }
    assert None not in whole.values()
    assert [cosine is None for cosine in numbers.layers[1]] == [False, True, False, False]
    assert None not in numbers.layers[0]
