"""How far the variants are from the baseline in the spaces h, z and p: arXiv 2603.24652.

Lane 0's vector is x, a variant's y, and d = y - x. Everything is computed in float64 from the
model's h and z, so that 1 - cos and KL keep their digits where they are near 0.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Distributions:
    """p = softmax(z / T) of every lane, with what follows from it; float64."""

    z: Tensor
    """[lanes, vocabulary]"""
    temperature: float
    logsumexp: Tensor
    """[lanes, 1], of z / T"""
    p: Tensor
    """[lanes, vocabulary]"""
    expected_z: Tensor
    """[lanes, lanes]: row i, column j is the mean of lane j's z under lane i's p."""
    entropy: Tensor
    """[lanes], in nats"""

    @classmethod
    def of(cls, z: Tensor, temperature: float) -> "Distributions":
        """z: [lanes, vocabulary] in the model's dtype."""
        z = z.double()
        # In place: on a CPU, fresh pages for vocabulary-sized tensors cost more than arithmetic.
        largest = z.amax(dim=-1, keepdim=True)
        p = (z - largest).div_(temperature).exp_()
        total = p.sum(dim=-1, keepdim=True)
        p /= total
        logsumexp = largest / temperature + total.log()
        expected_z = p @ z.T
        entropy = logsumexp[:, 0] - expected_z.diagonal() / temperature
        return cls(z, temperature, logsumexp, p, expected_z, entropy)

    def logprob(self, tokens: Tensor) -> Tensor:
        """log p of one token per lane, int64 [lanes]: float64 [lanes], in nats."""
        chosen = self.z.gather(-1, tokens[:, None]) / self.temperature - self.logsumexp
        return chosen[:, 0]


def measure(h: Tensor, lanes: Distributions) -> dict[str, Tensor]:
    """Every number of `trace.records.Drift` but `dp`: float64 [variants] each.

    h: [lanes, hidden], the vectors for which z = W h. The estimates are second-order: Theorem 1
    (est_h, est_z), Theorem 2 (est_p) and Theorem 3 (est_kl).
    """
    h, z, p, temperature = h.double(), lanes.z, lanes.p, lanes.temperature
    p_dot_p = p @ p.T
    r = p[0].square() / p_dot_p[0, 0]
    dz = z[1:] - z[0]
    d_sum, x_dot_d, dz_under_r = dz.sum(dim=-1), dz @ z[0], dz @ r
    dz_squared = dz.square_()
    d_dot_d, x_dot_x = dz_squared.sum(dim=-1), z[0] @ z[0]
    par_z, orth_z = split(x_dot_x, x_dot_d, d_dot_d)
    dh = h[1:] - h[0]
    par_h, orth_h = split(h[0] @ h[0], dh @ h[0], dh.square().sum(dim=-1))
    # A common offset is a part along (1, …, 1): taking it out needs sums, not centred copies.
    size, x_sum = z.shape[-1], z[0].sum()
    centred = split(
        x_dot_x - x_sum**2 / size, x_dot_d - x_sum * d_sum / size, d_dot_d - d_sum**2 / size
    )
    # KL(p ‖ q) = E_p[log p - log q], and log p - log q = -dz / T + lse(y / T) - lse(x / T).
    dz_under_p = lanes.expected_z[0, 1:] - lanes.expected_z[0, 0]
    dz_under_q = lanes.expected_z.diagonal()[1:] - lanes.expected_z[1:, 0]
    normalizer = (lanes.logsumexp[1:] - lanes.logsumexp[0])[:, 0]
    return {
        "cos_h": cosine(par_h, orth_h),
        "cos_z": cosine(par_z, orth_z),
        "cos_p": p_dot_p[0, 1:] / (p_dot_p[0, 0] * p_dot_p.diagonal()[1:]).sqrt(),
        "cos_z_centred": cosine(*centred),
        "par_h": par_h,
        "orth_h": orth_h,
        "par_z": par_z,
        "orth_z": orth_z,
        "est_h": orth_h.square() / 2,
        "est_z": orth_z.square() / 2,
        "est_p": (dz_squared @ r - dz_under_r.square()) / (2 * temperature**2),
        "kl": normalizer - dz_under_p / temperature,
        "kl_rev": dz_under_q / temperature - normalizer,
        "est_kl": (dz_squared @ p[0] - dz_under_p.square()) / (2 * temperature**2),
        "top1": (z[1:].argmax(dim=-1) == z[0].argmax()).double(),
    }


def split(x_dot_x: Tensor, x_dot_d: Tensor, d_dot_d: Tensor) -> tuple[Tensor, Tensor]:
    """par and orth: the lengths of d along x and across it, relative to |x|."""
    par = x_dot_d / x_dot_x
    # Rounding can take the difference of equal squares below 0.
    return par, (d_dot_d / x_dot_x - par.square()).clamp_min(0).sqrt()


def cosine(par: Tensor, orth: Tensor) -> Tensor:
    """Of x and y = x + d: y is 1 + par along x and orth across it."""
    return (1 + par) / torch.hypot(1 + par, orth)


def stream_cosines(streams: Tensor) -> Tensor:
    """Cosine similarity of each variant's residual stream to the baseline's: [points, variants].

    streams: [points, lanes, hidden], lane 0 the baseline.
    """
    streams = streams.double()
    return torch.cosine_similarity(streams[:, :1], streams[:, 1:], dim=-1, eps=0.0)


def finite(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None
