"""Standard errors, paired intervals and paired tests of scores.

Resampling has fixed seeds: the same items give the same figures.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 10_000
CHUNK = 1_000_000
"""Numbers drawn at once, which bounds the memory."""
BINOMIAL_DRAWS = 32
"""Items that are drawn in the time in which a count of items is."""
MAX_ENUMERATED = 16
"""Differences that are not 0, up to which every choice of signs is tried."""


def mean_stderr(values: Array) -> float | None:
    """Standard error of a mean: sample standard deviation / √n; None for fewer than two values.

    Equals `lm_eval.api.metrics.mean_stderr`.
    """
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None


def pooled_stderr(strata: Sequence[Array]) -> float | None:
    """Standard error of the mean over all items, of the variance within the strata.

    Equals `lm_eval.api.metrics.pooled_sample_stderr`, where a stratum of one item, which has no
    variance of its own, adds none. None where no stratum has two items.
    """
    items = sum(map(len, strata))
    freedom = items - len(strata)
    if not freedom:
        return None
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in strata)
    return math.sqrt(squares / freedom / items)


def unweighted_stderr(strata: Sequence[Array]) -> float | None:
    """Standard error of the mean of the strata's means, each counting the same.

    Equals `lm_eval.api.metrics.unweighted_mean_stderr`; None if a stratum has fewer than two items.
    """
    errors = [mean_stderr(values) for values in strata]
    if not errors or None in errors:
        return None
    return math.sqrt(sum(error**2 for error in errors if error is not None)) / len(strata)


def bootstrap_interval(
    strata: Sequence[Array], weights: Sequence[float]
) -> tuple[float, float] | None:
    """95 % interval of Σ weight · mean over the strata, by percentiles of a bootstrap over items.

    Items are drawn with replacement within their stratum, one fewer than there are, so that the
    variance is that of the mean and not (n − 1)/n of it, which is far too little for strata of few
    items (McCarthy and Snowden, 1985, "The bootstrap and finite population sampling"). Strata of
    one item are drawn from together. None where all draws are equal, as with no item that changed:
    then nothing says how far another sample would lie.
    """
    pairs = list(zip(strata, weights, strict=True))
    drawn = [pair for pair in pairs if len(pair[0]) > 1]
    if single := [pair for pair in pairs if len(pair[0]) == 1]:
        drawn.append((np.concatenate([s for s, _ in single]), sum(weight for _, weight in single)))
    if all(np.ptp(values) == 0 for values, _ in drawn):
        return None
    return _percentiles(tuple((_distinct(values), weight) for values, weight in drawn))


Distinct = tuple[tuple[float, int], ...]
"""Distinct values of a stratum, and how many items have each."""


def _distinct(values: Array) -> Distinct:
    distinct, counts = np.unique(values, return_counts=True)
    return tuple(zip(distinct.tolist(), counts.tolist(), strict=True))


# What is shown while an evaluation runs is drawn anew for the task in hand only.
@lru_cache(maxsize=10_000)
def _percentiles(strata: tuple[tuple[Distinct, float], ...]) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    means = np.zeros(RESAMPLES)
    for stratum, weight in strata:
        means += weight * _resampled_means(stratum, rng)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _resampled_means(stratum: Distinct, rng: np.random.Generator) -> Array:
    """Means of n − 1 of n values, drawn with replacement: [RESAMPLES]; of one value, that value."""
    values, counts = np.array(stratum).T
    items = int(counts.sum())
    draws = items - 1
    if not draws:
        return np.full(RESAMPLES, values[0])
    # How often each distinct value is drawn, or each draw: what there is less of.
    by_counts = len(values) * BINOMIAL_DRAWS < draws
    every = np.repeat(values, counts.astype(int))
    rows = max(1, CHUNK // (len(values) if by_counts else draws))
    parts: list[Array] = []
    for first in range(0, RESAMPLES, rows):
        size = min(rows, RESAMPLES - first)
        if by_counts:
            parts.append(rng.multinomial(draws, counts / items, size=size) @ values)
        else:
            parts.append(every[rng.integers(items, size=(size, draws))].sum(axis=1))
    return np.concatenate(parts) / draws


def mcnemar(lost: int, gained: int) -> float:
    """Two-sided p of McNemar's exact test: of `lost` + `gained` items that changed, each is as
    likely to be lost as to be gained (binomial); 1 where none changed."""
    changed = lost + gained
    ways, tail = 1, 0
    for chosen in range(min(lost, gained) + 1):
        tail += ways
        ways = ways * (changed - chosen) // (chosen + 1)
    return min(1.0, 2 * tail / 2**changed)


def sign_flip(contributions: Array) -> float:
    """Two-sided p of the paired permutation test: each item's contribution to the difference is as
    likely to have the other sign.

    Exact for at most `MAX_ENUMERATED` contributions that are not 0; else (k + 1)/(n + 1) by n =
    `RESAMPLES` random choices of signs, k of which give a sum as far from 0.
    """
    changed = contributions[contributions != 0]
    total = abs(float(changed.sum()))
    # Sums that differ by rounding only are equal.
    limit = total - 1e-12 * float(np.abs(changed).sum())
    bits = len(changed)
    if bits <= MAX_ENUMERATED:
        numbers = np.arange(2**bits, dtype=np.uint32)[:, None]
        flips = (numbers >> np.arange(bits, dtype=np.uint32)) & 1
        return float(np.mean(np.abs(_flipped_sums(changed, flips)) >= limit))
    rng = np.random.default_rng(0)
    rows = max(1, CHUNK // bits)
    extreme = 0
    for first in range(0, RESAMPLES, rows):
        size = (min(rows, RESAMPLES - first), -(-bits // 8))
        octets = rng.integers(256, size=size, dtype=np.uint8)
        flips = np.unpackbits(octets, axis=1, count=bits)
        extreme += int(np.sum(np.abs(_flipped_sums(changed, flips)) >= limit))
    return (extreme + 1) / (RESAMPLES + 1)


def _flipped_sums(values: Array, flips: NDArray[np.integer]) -> Array:
    """Sums of the values where those with a 1 in a row of `flips` [rows, values] have the other
    sign: [rows]."""
    return values.sum() - 2 * (flips @ values)
