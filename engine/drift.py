"""How far the variants are from the baseline in the spaces h, z and p: arXiv 2603.24652.

Lane 0's vector is x, a variant's y, and d = y - x. Everything is float64, from sums that the
model's device has added up, so that 1 - cos and KL keep their digits where they are near 0.
"""

import math

import numpy as np

Array = np.ndarray
"""float64"""


class Distributions:
    """p = softmax(z / T) of every lane: what the sums of `survey.survey` say of it.

    Arrays are [lanes]; lane 0 is the baseline, x its z, d = z - x, and r_i = p_i² / |p|² of lane
    0's p.
    """

    def __init__(self, sums: Array, largest: Array, vocabulary: int, temperature: float) -> None:
        """`sums` [COUNT, lanes] have e = exp((z - largest) / T) in the place of p."""
        total = sums[0]
        self.vocabulary, self.temperature = vocabulary, temperature
        self.logsumexp = largest / temperature + np.log(total)
        """Of z / T."""
        self.own_z, self.d_under_own, p_dot_x, p_dot_p = sums[1:5] / total
        """The means of a lane's z and of its d under its own p."""
        self.p_dot_x, self.p_dot_p = p_dot_x / total[0], p_dot_p / total
        """A lane's p times lane 0's, and times itself."""
        self.d_under_p, self.squares_under_p = sums[5:7] / total[0]
        """The means of d and d² under lane 0's p."""
        self.d_under_r, self.squares_under_r = sums[7:9] / sums[4, 0]
        """The means of d and d² under r."""
        self.z_sum, self.z_dots = sums[9], sums[10:]
        """Of z; and [3, lanes], x·x, x·d and d·d."""

    @property
    def entropy(self) -> Array:
        """[lanes], in nats"""
        return self.logsumexp - self.own_z / self.temperature

    def logprob(self, z: Array) -> Array:
        """log p, in nats, of tokens with logits z, [lanes, n]."""
        return z / self.temperature - self.logsumexp[:, None]


def measure(h_dots: Array, lanes: Distributions) -> dict[str, Array]:
    """Every number of `trace.records.Drift` but `top1`, `dp` and `logq`: [variants] each.

    h_dots: [3, variants], x·x, x·d and d·d of the vectors h for which z = W h. The estimates are
    second-order: Theorem 1 (est_h, est_z), Theorem 2 (est_p) and Theorem 3 (est_kl).
    """
    temperature, twice = lanes.temperature, 2 * lanes.temperature**2
    # Of h, z and z centred.
    dots = np.stack([h_dots, lanes.z_dots[:, 1:], lanes.z_dots[:, 1:]])
    # A common offset is a part along (1, …, 1): taking it out needs sums, not centred copies.
    x_sum, d_sum = lanes.z_sum[0], lanes.z_sum[1:] - lanes.z_sum[0]
    dots[2, 0] -= x_sum**2 / lanes.vocabulary
    dots[2, 1] -= x_sum * d_sum / lanes.vocabulary
    dots[2, 2] -= d_sum**2 / lanes.vocabulary
    par, orth = split(dots[:, 0], dots[:, 1], dots[:, 2])
    cos_h, cos_z, cos_z_centred = cosine(par, orth)
    est_h, est_z, _ = orth**2 / 2
    # KL(p ‖ q) = E_p[log p - log q], and log p - log q = -dz / T + lse(y / T) - lse(x / T).
    dz_under_p, dz_under_q = lanes.d_under_p[1:], lanes.d_under_own[1:]
    normalizer = lanes.logsumexp[1:] - lanes.logsumexp[0]
    return {
        "cos_h": cos_h,
        "cos_z": cos_z,
        "cos_p": lanes.p_dot_x[1:] / np.sqrt(lanes.p_dot_p[0] * lanes.p_dot_p[1:]),
        "cos_z_centred": cos_z_centred,
        "par_h": par[0],
        "orth_h": orth[0],
        "par_z": par[1],
        "orth_z": orth[1],
        "est_h": est_h,
        "est_z": est_z,
        "est_p": (lanes.squares_under_r - lanes.d_under_r**2)[1:] / twice,
        "kl": normalizer - dz_under_p / temperature,
        "kl_rev": dz_under_q / temperature - normalizer,
        "est_kl": (lanes.squares_under_p[1:] - dz_under_p**2) / twice,
    }


def split(x_dot_x: Array, x_dot_d: Array, d_dot_d: Array) -> tuple[Array, Array]:
    """par and orth: the lengths of d along x and across it, relative to |x|."""
    par = x_dot_d / x_dot_x
    # Rounding can take the difference of equal squares below 0.
    return par, np.sqrt(np.maximum(d_dot_d / x_dot_x - par**2, 0))


def cosine(par: Array, orth: Array) -> Array:
    """Of x and y = x + d: y is 1 + par along x and orth across it."""
    return (1 + par) / np.hypot(1 + par, orth)


def finite(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None
