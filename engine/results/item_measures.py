"""Measures of one item: a lane's answer beside the baseline's."""

import math
from collections.abc import Iterable
from typing import Literal

from ..trace.analysis.collapse import Collapse, text_collapse
from .records import Answer, Item, Metric

Flip = Literal["lost", "gained"]


def score_of(answer: Answer, metric: Metric) -> float | None:
    """Score by a metric; None where it is not one finite number."""
    value = answer.scores.get(metric.key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def is_binary(items: Iterable[Item], metric: Metric) -> bool:
    """Whether a metric is 0 or 1 in all items and lanes: each is right or wrong."""
    numbers = [score_of(answer, metric) for item in items for answer in item.answers]
    return all(number in (None, 0, 1) for number in numbers)


def flip(answer: Answer, baseline: Answer, metric: Metric) -> Flip | None:
    """Whether a lane lost an item that the baseline has right, or gained one that it has wrong.

    For metrics of 0 and 1; None where both are right or both wrong.
    """
    own, other = score_of(answer, metric), score_of(baseline, metric)
    if own is None or other is None or own == other:
        return None
    return "gained" if (own > other) == metric.higher_is_better else "lost"


def same_answer(answer: Answer, baseline: Answer, answer_filter: str) -> bool | None:
    """Whether both lanes choose the same option, or write the same text.

    Of texts, what `answer_filter` takes of them counts where there is such a filter. None where the
    baseline has no answer.
    """
    if baseline.option is not None:
        return answer.option == baseline.option
    text = baseline.filtered.get(answer_filter, baseline.text)
    return None if text is None else answer.filtered.get(answer_filter, answer.text) == text


def margin(answer: Answer) -> float | None:
    """Log probability of the best option less the second best's, in nats."""
    logprobs = sorted(_finite(answer.logprobs), reverse=True)
    return logprobs[0] - logprobs[1] if len(logprobs) > 1 else None


def near_tie(answer: Answer, noise_floor: float) -> bool:
    """Whether rounding may decide between the two best options: they are no further apart than the
    noise floor, which is 0 where texts are read one by one, or equal."""
    difference = margin(answer)
    return difference is not None and difference <= noise_floor


def option_probabilities(answer: Answer) -> list[float]:
    """Softmax over the log probabilities of the whole options; empty where one is not finite."""
    return [math.exp(logprob) for logprob in _option_logprobs(answer)]


def kl_among_options(answer: Answer, baseline: Answer) -> float | None:
    """KL(p ‖ q) in nats, p and q the baseline's and the lane's softmax over the options.

    None where there are no two options, or where an option's log probability is not finite.
    """
    own, other = _option_logprobs(answer), _option_logprobs(baseline)
    if len(own) < 2 or len(own) != len(other):
        return None
    # By log q, as q itself may be 0 by underflow.
    return max(0.0, math.fsum(math.exp(p) * (p - q) for p, q in zip(other, own, strict=True)))


def overlap(answer: Answer, baseline: Answer) -> float | None:
    """Share of the baseline's documents that the lane found too; None where there are none."""
    found = {match.id for match in baseline.matches}
    return len(found & {match.id for match in answer.matches}) / len(found) if found else None


def item_collapse(item: Item, lane: int) -> Collapse:
    """Where a lane's text collapses, by its tokens; the baseline's is compared with no other."""
    baseline = item.answers[0].tokens if lane else ()
    return text_collapse(item.answers[lane].tokens, baseline)


def _option_logprobs(answer: Answer) -> list[float]:
    """Logarithms of the softmax over the options; empty where one is not finite."""
    logprobs = _finite(answer.logprobs)
    if not logprobs or len(logprobs) < len(answer.logprobs):
        return []
    highest = max(logprobs)
    total = highest + math.log(sum(math.exp(logprob - highest) for logprob in logprobs))
    return [logprob - total for logprob in logprobs]


def _finite(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
