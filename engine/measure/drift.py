"""How far the variants are from the baseline in the spaces h, z and p: arXiv 2603.24652.

The baseline's vector is x, a variant's y, and d = y - x; p = softmax(x / T), q = softmax(y / T).
Everything is float64, from sums that the model's device has added up, so that 1 - cos and KL keep
their digits where they are near 0.
"""

import math
from typing import NamedTuple

import numpy as np

from ..logit_sums import LogitSums

Array = np.ndarray
"""float64"""

MEASURES = (
    *("cos_h", "cos_z", "cos_p", "cos_z_centred", "par_h", "orth_h", "par_z", "orth_z"),
    *("est_h", "est_z", "est_p", "kl", "kl_rev", "est_kl", "dp", "logq"),
)
"""The numbers of `trace.records.Drift`."""


class Measures(NamedTuple):
    """The numbers of one step."""

    drift: Array
    """[variants, MEASURES]"""
    layers: Array
    """[variants, points], cosine similarities of the residual streams, to seven decimal places."""
    entropies: Array
    """[lanes], in nats, of softmax(z / T)."""
    margins: Array
    """[lanes], the highest logit less the second highest."""
    logprobs: Array
    """[lanes, tokens], log probabilities in nats."""
    probs: Array
    """[lanes, tokens], probabilities."""
    finite: bool
    """Whether all of these are."""


# -- the formulas, of arrays over variants, lanes or points -----------------------------------


def par_and_orth(x_x: Array, x_d: Array, d_d: Array) -> tuple[Array, Array]:
    """Lengths of d along x and across it, relative to |x|: <d, x> / |x|² and |d - par x| / |x|."""
    par = x_d / x_x
    # Rounding can take the difference of equal squares below 0.
    return par, np.sqrt(np.maximum(d_d / x_x - par**2, 0))


def cosine(par: Array, orth: Array) -> Array:
    """Cosine similarity of x and y = x + d: y is 1 + par along x and orth across it."""
    return (1 + par) / np.hypot(1 + par, orth)


def centred(
    x_x: Array, x_d: Array, d_d: Array, x_sum: Array, d_sum: Array, size: int
) -> tuple[Array, Array, Array]:
    """Dot products after each vector's mean is subtracted.

    A common offset is a part along (1, …, 1): taking it out needs sums, not centred copies.
    """
    return x_x - x_sum**2 / size, x_d - x_sum * d_sum / size, d_d - d_sum**2 / size


def variance(mean: Array, mean_square: Array) -> Array:
    """Var(d) = E[d²] - E[d]²."""
    return mean_square - mean**2


def estimate_vector(orth: Array) -> Array:
    """Theorem 1 (est_h, est_z): 1 - cos(x, x + d) ≈ |d_⊥|² / 2|x|²."""
    return orth**2 / 2


def estimate_probability(variance_r: Array, temperature: float) -> Array:
    """Theorem 2 (est_p): 1 - cos(p, q) ≈ Var_r(dz) / 2T², with r_i = p_i² / |p|²."""
    return variance_r / (2 * temperature**2)


def estimate_kl(variance_p: Array, temperature: float) -> Array:
    """Theorem 3 (est_kl): KL(p ‖ q) ≈ Var_p(dz) / 2T²."""
    return variance_p / (2 * temperature**2)


def kl(mean_d: Array, logsumexp_x: Array, logsumexp_y: Array, temperature: float) -> Array:
    """KL(p ‖ q) = E_p[log p - log q] in nats, where `mean_d` is E_p[d].

    log p - log q = logsumexp(y / T) - logsumexp(x / T) - d / T.
    """
    return (logsumexp_y - logsumexp_x) - mean_d / temperature


def kl_reverse(mean_d: Array, logsumexp_x: Array, logsumexp_y: Array, temperature: float) -> Array:
    """KL(q ‖ p) = E_q[log q - log p] in nats, where `mean_d` is E_q[d]."""
    return mean_d / temperature - (logsumexp_y - logsumexp_x)


def entropy(logsumexp: Array, mean_z: Array, temperature: float) -> Array:
    """H(p) = logsumexp(z / T) - E_p[z] / T in nats."""
    return logsumexp - mean_z / temperature


# -- a step -----------------------------------------------------------------------------------


def measure(
    sums: Array,
    highest: Array,
    logits: Array,
    h_dots: Array,
    stream_dots: Array,
    vocabulary: int,
    temperature: float,
) -> Measures:
    """Compute a step's numbers from the reductions of its outputs.

    `sums` [parts, lanes, LogitSums], `highest` [lanes, k], `h_dots` [3, variants] and `stream_dots`
    [3, points, variants] are as in `reductions.Reductions`; `logits` [lanes, tokens] are those of
    some tokens, the first of which is the one that the baseline chose.
    """
    with np.errstate(all="ignore"):
        table = sums.sum(axis=0).T
        lanes = LogitSums(*table)
        logsumexps = highest[:, 0] / temperature + np.log(lanes.e)
        entropies = entropy(logsumexps, lanes.e_y / lanes.e, temperature)
        # A vocabulary of one token has no second.
        margins = highest[:, 0] - highest[:, min(1, highest.shape[1] - 1)]
        logprobs = logits / temperature - logsumexps[:, None]
        probs = np.exp(logprobs)
        numbers = [entropies, margins, logprobs]
        if len(highest) > 1:
            x, y = LogitSums(*table[:, 0]), LogitSums(*table[:, 1:])
            vectors, cosines = _drift_of_vectors(x, y, h_dots, stream_dots, vocabulary)
            drift = {
                **vectors,
                **_drift_of_probabilities(x, y, logsumexps[0], logsumexps[1:], temperature),
                "dp": probs[1:, 0] - probs[0, 0],
                "logq": logprobs[1:, 0],
            }
            drifts = np.array([drift[name] for name in MEASURES]).T
            layers = np.rint(cosines.T * 1e7) / 1e7
            numbers += drifts, layers
        else:
            drifts, layers = np.empty((0, len(MEASURES))), np.empty((0, stream_dots.shape[1]))
        # Finite log probabilities have finite probabilities.
        finite = math.isfinite(sum(array.sum() for array in numbers))
    return Measures(drifts, layers, entropies, margins, logprobs, probs, finite)


def _drift_of_vectors(
    x: LogitSums[Array],
    y: LogitSums[Array],
    h_dots: Array,
    stream_dots: Array,
    vocabulary: int,
) -> tuple[dict[str, Array], Array]:
    """Measures of h and z, and cosine similarities of the streams [points, variants].

    x and y are the sums of the baseline and of the variants.
    """
    # All vectors together, as a call of NumPy costs more than so few numbers: h, z, z centred and
    # the points of the stream.
    dots = np.empty((3, 3 + stream_dots.shape[1], h_dots.shape[1]))
    dots[:, 0], dots[:, 3:] = h_dots, stream_dots
    dots[:, 1] = y.x_x, y.x_d, y.d_d
    dots[:, 2] = centred(y.x_x, y.x_d, y.d_d, x.y, y.y - x.y, vocabulary)
    par, orth = par_and_orth(*dots)
    cosines, estimates = cosine(par, orth), estimate_vector(orth[:2])
    measures = {
        "cos_h": cosines[0],
        "cos_z": cosines[1],
        "cos_z_centred": cosines[2],
        "par_h": par[0],
        "par_z": par[1],
        "orth_h": orth[0],
        "orth_z": orth[1],
        "est_h": estimates[0],
        "est_z": estimates[1],
    }
    return measures, cosines[3:]


def _drift_of_probabilities(
    x: LogitSums[Array],
    y: LogitSums[Array],
    logsumexp_x: Array,
    logsumexp_y: Array,
    temperature: float,
) -> dict[str, Array]:
    """Measures of p and q; x and y are the sums of the baseline and of the variants."""
    # The normalizers of e₀, e and e₀² make means under p, q and r of sums.
    d_under_p, d_under_q, d_under_r = y.e0_d / x.e, y.e_d / y.e, y.e0_e0_d / x.e_e
    variance_p = variance(d_under_p, y.e0_d_d / x.e)
    variance_r = variance(d_under_r, y.e0_e0_d_d / x.e_e)
    return {
        "cos_p": y.e_e0 / np.sqrt(x.e_e * y.e_e),
        "est_p": estimate_probability(variance_r, temperature),
        "kl": kl(d_under_p, logsumexp_x, logsumexp_y, temperature),
        "kl_rev": kl_reverse(d_under_q, logsumexp_x, logsumexp_y, temperature),
        "est_kl": estimate_kl(variance_p, temperature),
    }


def finite_or_none(value: float) -> float | None:
    """The value, or None for NaN and infinity, which JSON has not."""
    return value if math.isfinite(value) else None
