"""KL(p‖q) of a form's logits: the trace's own number, also where logits are no numbers."""

import math

import pytest
import torch
from prunetui.engine.blame.next_token import NextTokenReader
from prunetui.engine.measure.output_drift import measure_kl
from prunetui.engine.model.kl_divergence import kl_divergence, log_softmax, rounding_kl

INF, NAN = math.inf, math.nan
TEXTS = {token: f"<{token}>" for token in range(5)}

LOGITS = {
    "near": ([1.0, 2.0, 3.0, 0.0], [1.0, 2.0, 3.0, 1e-6]),
    "far": ([80.0, 0.0, 1.0, -900.0], [0.0, 90.0, 1.0, 0.0]),
    "no probability in either": ([1.0, -INF, 2.0, 0.0], [0.5, -INF, 2.5, 1.0]),
    "no probability in p": ([1.0, -INF, 2.0, 0.0], [0.5, 7.0, 2.5, 1.0]),
    "no probability in q": ([1.0, 2.0, 2.5, 0.0], [0.5, -INF, 2.5, 1.0]),
    "not a number in q": ([1.0, 2.0, 2.5, 0.0], [0.5, NAN, 2.5, 1.0]),
    "not a number in p": ([1.0, NAN, 2.5, 0.0], [0.5, 0.0, 2.5, 1.0]),
    "not a number where p has none": ([1.0, -INF, 2.5, 0.0], [0.5, NAN, 2.5, 1.0]),
    "infinite in q": ([1.0, 2.0, 2.5, 0.0], [0.5, INF, 2.5, 1.0]),
    "nothing in q": ([1.0, 2.0, 2.5, 0.0], [-INF] * 4),
}


@pytest.mark.parametrize("name", LOGITS)
def test_kl_is_that_of_the_trace(name: str) -> None:
    p, q = (torch.tensor(logits) for logits in LOGITS[name])
    found = NextTokenReader(p, (0, 1), 1.0, TEXTS)(q)
    (expected,) = measure_kl(torch.stack([p, q]))
    assert found.kl == (None if expected is None else pytest.approx(expected, abs=1e-13))
    assert found.not_numbers == (not q.logsumexp(0).isfinite())


def test_kl_has_the_sign_that_it_has_and_the_temperature_divides() -> None:
    """Rounding makes a negative number of nothing; that is not hidden."""
    generator = torch.Generator().manual_seed(3)
    p = torch.randn(64, 300, generator=generator, dtype=torch.float64) * 4
    q = p + torch.randn(p.shape, generator=generator, dtype=torch.float64)
    weights = (p / 0.7).exp()
    weights /= weights.sum(-1, keepdim=True)
    others = (q / 0.7).exp()
    others /= others.sum(-1, keepdim=True)
    expected = (weights * (weights / others).log()).sum(-1)
    assert torch.allclose(kl_divergence(log_softmax(p, 0.7), q, 0.7), expected, rtol=1e-12, atol=0)
    assert (kl_divergence(log_softmax(p), p + 1e-3) < 0).any()


def test_the_gap_is_of_two_given_tokens_and_equal_logits_go_by_token() -> None:
    reader = NextTokenReader(torch.tensor([1.0, 5.0, 2.0, 0.0]), (1, 2), 1.0, TEXTS)
    form = reader(torch.tensor([4.0, 1.5, 4.0, 0.0]))
    assert (form.gap, form.token, form.text) == (-2.5, 0, "<0>")
    assert form.chooses(0)
    broken = reader(torch.tensor([NAN, 1.5, 4.0, 0.0]))
    assert (broken.kl, broken.gap, broken.text) == (None, None, "")
    assert not any(map(broken.chooses, range(4)))


@pytest.mark.parametrize(("dtype", "temperature"), [(torch.bfloat16, 1.0), (torch.float16, 0.7)])
def test_rounding_of_logits_makes_the_kl_that_is_expected(
    dtype: torch.dtype, temperature: float
) -> None:
    generator = torch.Generator().manual_seed(3)
    exact = torch.randn(400, 300, generator=generator, dtype=torch.float64) * 4
    rounded = exact.to(dtype)
    measured = kl_divergence(log_softmax(exact, temperature), rounded, temperature).mean()
    expected = [rounding_kl(z, temperature) for z in rounded]
    assert sum(expected) / len(expected) == pytest.approx(float(measured), rel=0.1)
    assert rounding_kl(torch.tensor([1.0, -INF], dtype=dtype)) == 0
