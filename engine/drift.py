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
        scaled = z / temperature
        logsumexp = scaled.logsumexp(dim=-1, keepdim=True)
        p = (scaled - logsumexp).exp()
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
    dh, dz = h[1:] - h[0], z[1:] - z[0]
    par_h, orth_h = split(h[0], dh)
    par_z, orth_z = split(z[0], dz)
    # A common offset is a vector along (1, …, 1): taking it out needs sums, not copies.
    size = z.shape[-1]
    x_sum, d_sum = z[0].sum(), dz.sum(dim=-1)
    squares = dz.square()
    x_square = z[0] @ z[0] - x_sum**2 / size
    d_square = squares.sum(dim=-1) - d_sum**2 / size
    x_dot_d = dz @ z[0] - x_sum * d_sum / size
    # KL(p ‖ q) = E_p[log p - log q], and log p - log q = -dz / T + lse(y / T) - lse(x / T).
    dz_under_p = lanes.expected_z[0, 1:] - lanes.expected_z[0, 0]
    dz_under_q = lanes.expected_z.diagonal()[1:] - lanes.expected_z[1:, 0]
    normalizer = (lanes.logsumexp[1:] - lanes.logsumexp[0])[:, 0]
    r = p[0].square() / p[0].square().sum()
    return {
        "cos_h": cosine(par_h, orth_h),
        "cos_z": cosine(par_z, orth_z),
        "cos_p": cosine(*split(p[0], p[1:] - p[0])),
        "cos_z_centred": (x_square + x_dot_d)
        / (x_square * (x_square + 2 * x_dot_d + d_square)).sqrt(),
        "par_h": par_h,
        "orth_h": orth_h,
        "par_z": par_z,
        "orth_z": orth_z,
        "est_h": orth_h.square() / 2,
        "est_z": orth_z.square() / 2,
        "est_p": (squares @ r - (dz @ r).square()) / (2 * temperature**2),
        "kl": normalizer - dz_under_p / temperature,
        "kl_rev": dz_under_q / temperature - normalizer,
        "est_kl": (squares @ p[0] - dz_under_p.square()) / (2 * temperature**2),
        "top1": (z[1:].argmax(dim=-1) == z[0].argmax()).double(),
    }


def split(x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """The parts of d, [variants, n], along x, [n], and orthogonal to it, relative to |x|."""
    square = x @ x
    par = (d @ x) / square
    orth = torch.linalg.vector_norm(d - par[:, None] * x, dim=-1) / square.sqrt()
    return par, orth


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
