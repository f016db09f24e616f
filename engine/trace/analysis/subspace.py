"""Drift of a lane among a few answers: why multiple choice survives pruning.

A choice looks at the logits of its options alone (arXiv 2603.24652): p̂ = softmax(z / T) over
those, which is p renormalised.
"""

import math
from dataclasses import dataclass

from ..records import AnswerNumbers, Drift, Step


@dataclass(frozen=True)
class Choice:
    """Probabilities and logits of the answers in one lane."""

    probs: list[float]
    """p̂, which sums to 1 over the answers."""
    logprobs: list[float]
    """Log probabilities over the whole vocabulary, in nats."""
    z: list[float]

    @property
    def answer(self) -> int:
        """Index of the most probable answer."""
        return max(range(len(self.probs)), key=self.probs.__getitem__)


@dataclass(frozen=True)
class SubspaceDrift:
    cos_z: float | None
    """Cosine of the answers' logits; None where all of a lane's are 0 and have no direction."""
    cos_p: float | None
    """Cosine of p̂ and q̂, which is that of p and q restricted to the answers."""
    kl: float
    """KL(p̂ ‖ q̂), p̂ baseline, in nats."""
    changed: bool
    """Whether the two choose different answers."""


def choice(numbers: AnswerNumbers | None) -> Choice | None:
    """Choice among the answers; None if the lane had ended or a number is not finite."""
    if numbers is None:
        return None
    z = [value for value in numbers.z if value is not None]
    logprobs = [value for value in numbers.logprob if value is not None]
    if not len(numbers.z) == len(z) == len(logprobs) > 0:
        return None
    highest = max(logprobs)
    weights = [math.exp(logprob - highest) for logprob in logprobs]
    total = math.fsum(weights)
    return Choice([weight / total for weight in weights], logprobs, z)


def kl_among(baseline: Choice, variant: Choice) -> float:
    """KL(p̂ ‖ q̂), p̂ baseline, in nats."""
    log_p, log_q = (_logsumexp(lane.logprobs) for lane in (baseline, variant))
    return math.fsum(
        p * ((logp - log_p) - (logq - log_q))
        for p, logp, logq in zip(baseline.probs, baseline.logprobs, variant.logprobs, strict=True)
    )


def subspace_drift(baseline: Choice, variant: Choice) -> SubspaceDrift:
    return SubspaceDrift(
        cos_z=_cosine(baseline.z, variant.z),
        cos_p=_cosine(baseline.probs, variant.probs),
        kl=kl_among(baseline, variant),
        changed=baseline.answer != variant.answer,
    )


def choices(step: Step, lane: int) -> tuple[Choice | None, Choice | None, Drift | None]:
    """Baseline's choice, variant's choice and their drift over the whole vocabulary at one step; in
    context both on the baseline's tokens."""
    if step.answers is None:
        return None, None, None
    if step.local_answers is not None and step.local is not None:
        numbers, drift = step.local_answers_of(lane), step.local_of(lane)
    else:
        numbers, drift = step.answers[lane], step.drift_of(lane)
    return choice(step.answers[0]), choice(numbers), drift


def _logsumexp(values: list[float]) -> float:
    highest = max(values)
    return highest + math.log(math.fsum(math.exp(value - highest) for value in values))


def _cosine(a: list[float], b: list[float]) -> float | None:
    lengths = math.hypot(*a), math.hypot(*b)
    if 0 in lengths:
        return None
    return math.fsum(x / lengths[0] * (y / lengths[1]) for x, y in zip(a, b, strict=True))
