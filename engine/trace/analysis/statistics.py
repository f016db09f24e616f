"""Statistics of a variant that are usual for pruned and quantised models.

Names and definitions of KLD, Δp and "same top p" are those that llama.cpp's
`llama-perplexity --kl-divergence` prints; the share of divergent tokens is arXiv 2311.01544's.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ..divergence import chosen_tokens, differs, first_divergence, is_tie
from ..records import Drift, Step
from ..trace import Trace
from .collapse import (
    WINDOW,
    Collapse,
    compression_ratio,
    distinct_share,
    lane_collapse,
    repeated_share,
)
from .summary import mean, percentile

LARGEST_EXPONENT = math.log(sys.float_info.max)


@dataclass(frozen=True)
class Distances:
    """Statistics over the steps at which lane and baseline were both measured; p is the baseline's.

    None where there is no such step or a value was not finite.
    """

    steps: int
    not_comparable: int
    """Further steps, at which the logits of one of the two are not numbers."""
    kld_mean: float | None
    """KL(p ‖ q), in nats, as the next four."""
    kld_median: float | None
    kld_99: float | None
    kld_999: float | None
    kld_max: float | None
    same_top: float | None
    """Share of steps at which both lanes' most probable token is the same, in 0..1."""
    dp_mean: float | None
    """Δp: the probability of the baseline's token, variant less baseline, in -1..1."""
    dp_rms: float | None
    dp_1: float | None
    """Percentiles of Δp."""
    dp_5: float | None
    dp_95: float | None
    dp_99: float | None
    ppl_ratio: float | None
    """Perplexity of the variant over the baseline's, on the baseline's tokens."""


@dataclass(frozen=True)
class TextMeasures:
    """How much a lane's text repeats itself; all but the collapse over its last `WINDOW` tokens.

    None where there is no text or, of the entropy, a value was not finite.
    """

    collapse: Collapse
    seq_rep: float
    """Share of 4-grams that repeat another (seq-rep-4), in 0..1."""
    distinct: float | None
    """Number of different 2-grams over that of tokens (distinct-2), in 0..1."""
    compression: float | None
    """Bytes of the text over those of it compressed by zlib."""
    entropy: float | None
    """Mean entropy of the lane's p, in nats."""


@dataclass(frozen=True)
class Statistics:
    propagated: Distances
    """Distances on the lane's own tokens (in a forced context, the baseline's)."""
    local: Distances | None
    """Distances on the baseline's tokens, in context both."""
    first_divergence: int | None
    tie: bool
    """Whether that difference is a tie: the baseline's margin is under the noise floor."""
    divergent: float | None
    """Share of steps whose token differs from the baseline's, in 0..1."""
    text: TextMeasures
    seconds: float | None
    """Median seconds of a step, of all lanes together."""
    read: float | None
    """Median bytes of weights and caches read in a step, of all lanes together."""


def statistics(trace: Trace, lane: int) -> Statistics:
    """Statistics of a variant; `lane` is 1 or more."""
    steps = list(trace.steps)
    own = [(step, drift) for step in steps if (drift := step.drift_of(lane))]
    local = [(step, drift) for step in steps if (drift := step.local_of(lane))]
    context = trace.header.context
    running = [step for step in steps if step.lanes[0] or step.lanes[lane]]
    first = first_divergence(steps, lane)
    return Statistics(
        propagated=_distances(own, same_text=context == "forced"),
        local=_distances(local, same_text=True) if context == "both" else None,
        first_divergence=first,
        tie=first is not None and is_tie(trace.header, steps[first], lane),
        divergent=mean([float(differs(step, lane)) for step in running]),
        text=text_measures(steps, lane),
        # The first step chooses from the prompt's logits and runs no forward pass of its own.
        seconds=percentile([step.seconds for step in steps[1:]], 50),
        read=percentile([float(step.read) for step in steps[1:]], 50),
    )


def text_measures(steps: Sequence[Step], lane: int) -> TextMeasures:
    """How much a lane's text repeats itself by the last of the steps, or by its end."""
    tokens = chosen_tokens(steps, lane)
    window = [token for step in steps[: len(tokens)][-WINDOW:] if (token := step.lanes[lane])]
    return TextMeasures(
        collapse=lane_collapse(steps, lane),
        seq_rep=repeated_share(tokens[-WINDOW:]),
        distinct=distinct_share(tokens[-WINDOW:], 2),
        compression=compression_ratio("".join(token.text for token in window)),
        entropy=mean([token.entropy for token in window]),
    )


def _distances(compared: list[tuple[Step, Drift]], *, same_text: bool) -> Distances:
    measured = [(step, drift) for step, drift in compared if not drift.not_comparable]
    kld = [drift.kl for _, drift in measured]
    dp = [drift.dp for _, drift in measured]
    square = mean([None if value is None else value * value for value in dp])
    return Distances(
        steps=len(measured),
        not_comparable=len(compared) - len(measured),
        kld_mean=mean(kld),
        kld_median=percentile(kld, 50),
        kld_99=percentile(kld, 99),
        kld_999=percentile(kld, 99.9),
        kld_max=percentile(kld, 100),
        same_top=mean([float(drift.top1) for _, drift in measured]),
        dp_mean=mean(dp),
        dp_rms=None if square is None else math.sqrt(square),
        dp_1=percentile(dp, 1),
        dp_5=percentile(dp, 5),
        dp_95=percentile(dp, 95),
        dp_99=percentile(dp, 99),
        ppl_ratio=_perplexity_ratio(measured) if same_text else None,
    )


def _perplexity_ratio(measured: list[tuple[Step, Drift]]) -> float | None:
    """Perplexity of q over that of p: exp of the mean of log p - log q of the baseline's tokens."""
    logs = [
        None
        if (token := step.lanes[0]) is None or token.logprob is None or drift.logq is None
        else token.logprob - drift.logq
        for step, drift in measured
    ]
    gap = mean(logs)
    return None if gap is None or gap > LARGEST_EXPONENT else math.exp(gap)
