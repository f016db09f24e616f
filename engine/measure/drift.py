"""How far the variants are from the baseline in the spaces h, z and p: arXiv 2603.24652.

Lane 0's vector is x, a variant's y, and d = y - x. Everything is float64, from sums that the
model's device has added up, so that 1 - cos and KL keep their digits where they are near 0.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numba import float64, int64, njit

from ..cpu.kernels.logits import (
    COUNT,
    D_DOT_D,
    D_UNDER_OWN,
    D_UNDER_P,
    D_UNDER_R,
    OWN_Z,
    P_DOT_P,
    P_DOT_X,
    SQUARES_UNDER_P,
    SQUARES_UNDER_R,
    TOTAL,
    X_DOT_D,
    X_DOT_X,
    Z_SUM,
)
from ..cpu.kernels.scalars import compiled
from ..cpu.runtime.compile_cache import kept

Array = np.ndarray
"""float64"""

MEASURES = (
    *("cos_h", "cos_z", "cos_p", "cos_z_centred", "par_h", "orth_h", "par_z", "orth_z"),
    *("est_h", "est_z", "est_p", "kl", "kl_rev", "est_kl", "dp", "logq"),
)
"""The numbers of `trace.records.Drift`."""
_OF_A_VARIANT = np.dtype([(name, np.float64) for name in MEASURES])


class Measures(NamedTuple):
    drift: Array
    """[variants, MEASURES]"""
    layers: Array
    """[variants, points], cosine similarities of the residual streams, to seven places."""
    entropies: Array
    """[lanes], in nats, of p = softmax(z / T)."""
    margins: Array
    """[lanes], the highest logit less the second highest."""
    logprobs: Array
    """[lanes, tokens], log p in nats."""
    probs: Array
    """[lanes, tokens], p."""
    finite: bool
    """Whether all of these are."""


def measure(
    sums: Array,
    highest: Array,
    logits: Array,
    h_dots: Array,
    stream_dots: Array,
    vocabulary: int,
    temperature: float,
) -> Measures:
    """Of what `survey.Survey` has, and of logits [lanes, tokens] of some tokens, the first of which
    is the one that the baseline chose.

    The estimates are second-order: Theorem 1 (est_h, est_z), Theorem 2 (est_p) and Theorem 3
    (est_kl).
    """
    of_variants, *others = compiled_measure()(
        sums, highest, logits, h_dots, stream_dots, vocabulary, temperature
    )
    return Measures(of_variants.view(np.float64).reshape(-1, len(MEASURES)), *others)


@functools.cache
def compiled_measure() -> Any:
    """What `measure` calls: NumPy would take several times as long for so few numbers."""
    matrix, cube = float64[:, :], float64[:, :, :]
    arguments = cube, matrix, matrix, matrix, cube, int64, float64
    return kept(lambda **caching: njit(arguments, error_model="numpy", **caching)(_measure))


def _measure(parts, highest, logits, h_dots, stream_dots, vocabulary, temperature):
    lanes, tokens = logits.shape
    # A vocabulary of one token has none.
    second = min(1, highest.shape[1] - 1)
    entropies, margins, logsumexps = np.empty(lanes), np.empty(lanes), np.empty(lanes)
    logprobs, probs = np.empty((lanes, tokens)), np.empty((lanes, tokens))
    sums = np.zeros((lanes, COUNT))
    for part in range(len(parts)):
        for lane in range(lanes):
            for number in range(COUNT):
                sums[lane, number] += parts[part, lane, number]
    for lane in range(lanes):
        # The sums have e = exp((z - highest) / T) in the place of p.
        total, own_z = sums[lane, TOTAL], sums[lane, OWN_Z]
        logsumexp = logsumexps[lane] = highest[lane, 0] / temperature + np.log(total)
        entropies[lane] = logsumexp - own_z / total / temperature
        margins[lane] = highest[lane, 0] - highest[lane, second]
        for token in range(tokens):
            logprob = logprobs[lane, token] = logits[lane, token] / temperature - logsumexp
            probs[lane, token] = np.exp(logprob)
    points = stream_dots.shape[1]
    of_variants, layers = np.empty(lanes - 1, _OF_A_VARIANT), np.empty((lanes - 1, points))
    for variant in range(lanes - 1):
        lane, out = variant + 1, of_variants[variant]
        _measure_vectors(h_dots[:, variant], sums[0], sums[lane], vocabulary, out)
        normalizer = logsumexps[lane] - logsumexps[0]
        _measure_probabilities(sums[0], sums[lane], normalizer, temperature, out)
        out["dp"] = probs[lane, 0] - probs[0, 0]
        out["logq"] = logprobs[lane, 0]
        for point in range(points):
            x_dot_x, x_dot_d, d_dot_d = stream_dots[:, point, variant]
            cosine = _cosine(*_split(x_dot_x, x_dot_d, d_dot_d))
            layers[variant, point] = np.rint(cosine * 1e7) / 1e7
    # Finite log probabilities have finite probabilities.
    finite = (
        _are_finite(of_variants.view(np.float64))
        and _are_finite(layers.ravel())
        and _are_finite(entropies)
        and _are_finite(margins)
        and _are_finite(logprobs.ravel())
    )
    return of_variants, layers, entropies, margins, logprobs, probs, finite


@compiled()
def _are_finite(numbers):
    finite = 0
    for number in numbers:
        finite += np.isfinite(number)
    return finite == len(numbers)


@compiled()
def _measure_vectors(h_dots, x, y, vocabulary, out):
    """h and z as vectors; x and y are the sums of two lanes."""
    par, orth = _split(h_dots[0], h_dots[1], h_dots[2])
    out["par_h"], out["orth_h"], out["cos_h"] = par, orth, _cosine(par, orth)
    out["est_h"] = orth**2 / 2
    x_dot_x, x_dot_d, d_dot_d = y[X_DOT_X], y[X_DOT_D], y[D_DOT_D]
    par, orth = _split(x_dot_x, x_dot_d, d_dot_d)
    out["par_z"], out["orth_z"], out["cos_z"] = par, orth, _cosine(par, orth)
    out["est_z"] = orth**2 / 2
    # A common offset is a part along (1, …, 1): taking it out needs sums, not centred copies.
    x_sum, d_sum = x[Z_SUM], y[Z_SUM] - x[Z_SUM]
    x_dot_x -= x_sum**2 / vocabulary
    x_dot_d -= x_sum * d_sum / vocabulary
    d_dot_d -= d_sum**2 / vocabulary
    out["cos_z_centred"] = _cosine(*_split(x_dot_x, x_dot_d, d_dot_d))


@compiled()
def _measure_probabilities(x, y, normalizer, temperature, out):
    """p and q, of the sums x and y; `normalizer` is lse(y / T) - lse(x / T)."""
    out["cos_p"] = y[P_DOT_X] / np.sqrt(x[P_DOT_P] * y[P_DOT_P])
    # KL(p ‖ q) = E_p[log p - log q], and log p - log q = -d / T + lse(y / T) - lse(x / T).
    d_under_p, d_under_q = y[D_UNDER_P] / x[TOTAL], y[D_UNDER_OWN] / y[TOTAL]
    out["kl"] = normalizer - d_under_p / temperature
    out["kl_rev"] = d_under_q / temperature - normalizer
    twice = 2 * temperature**2
    out["est_kl"] = (y[SQUARES_UNDER_P] / x[TOTAL] - d_under_p**2) / twice
    # r = p² / |p|².
    d_under_r, squares_under_r = y[D_UNDER_R] / x[P_DOT_P], y[SQUARES_UNDER_R] / x[P_DOT_P]
    out["est_p"] = (squares_under_r - d_under_r**2) / twice


@compiled()
def _split(x_dot_x, x_dot_d, d_dot_d):
    """par and orth: the lengths of d along x and across it, relative to |x|."""
    par = x_dot_d / x_dot_x
    # Rounding can take the difference of equal squares below 0.
    return par, np.sqrt(np.maximum(d_dot_d / x_dot_x - par**2, 0))


@compiled()
def _cosine(par, orth):
    """Of x and y = x + d: y is 1 + par along x and orth across it."""
    return (1 + par) / np.hypot(1 + par, orth)


def finite(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None
