"""How far the variants are from the baseline in the spaces h, z and p: arXiv 2603.24652.

Lane 0's vector is x, a variant's y, and d = y - x. Everything is computed in float64 from the
model's h and z, so that 1 - cos and KL keep their digits where they are near 0.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 65536
"""Tokens of the vocabulary at a time on a CPU: what is made of them stays in its cache."""


@dataclass(frozen=True)
class Distributions:
    """p = softmax(z / T) of every lane, and sums over the vocabulary that measures are made of.

    All but `z` are float64; lane 0 is the baseline, dz = z - z of lane 0, r_i = p_i² / |p|².
    """

    z: Tensor
    """[lanes, vocabulary], in the model's dtype"""
    temperature: float
    logsumexp: Tensor
    """[lanes, 1], of z / T"""
    own_z: Tensor
    """[lanes]: the mean of a lane's z under its own p"""
    z_under_p: Tensor
    """[lanes]: the mean of a lane's z under lane 0's p"""
    x_under_own: Tensor
    """[lanes]: the mean of lane 0's z under a lane's own p"""
    p_dot_x: Tensor
    """[lanes]: a lane's p times lane 0's"""
    p_dot_p: Tensor
    """[lanes]: |p|²"""
    z_sum: Tensor
    """[lanes]"""
    x_dot_x: Tensor
    """[]: |z of lane 0|²"""
    x_dot_d: Tensor
    """[variants]: z of lane 0 times dz"""
    d_dot_d: Tensor
    """[variants]: |dz|²"""
    squares_under_p: Tensor
    """[variants]: mean of dz² under lane 0's p"""
    d_under_r: Tensor
    """[variants]: mean of dz under r"""
    squares_under_r: Tensor
    """[variants]: mean of dz² under r"""

    @classmethod
    def of(cls, z: Tensor, temperature: float) -> "Distributions":
        """One pass over z, [lanes, vocabulary], in products by vectors: thin matrix products are
        slower."""
        lanes, vocabulary = z.shape
        largest = z.amax(dim=-1, keepdim=True).double()
        of_lanes = z.new_zeros(7, lanes, dtype=torch.float64)
        total, own_z, z_under_p, x_under_own, p_dot_x, p_dot_p, z_sum = of_lanes
        x_dot_x = z.new_zeros((), dtype=torch.float64)
        of_variants = z.new_zeros(5, lanes - 1, dtype=torch.float64)
        x_dot_d, d_dot_d, squares_under_p, d_under_r, squares_under_r = of_variants
        for chunk in z.split(CHUNK if z.device.type == "cpu" else vocabulary, dim=-1):
            part = chunk.double()
            # Of one lane's p, e is the same multiple in every chunk.
            e = part - largest
            if temperature != 1:
                e.div_(temperature)
            e.exp_()
            x, e_x = part[0], e[0]
            total += e.sum(dim=-1)
            own_z += torch.stack([*map(torch.dot, e, part)])
            z_under_p.addmv_(part, e_x)
            x_under_own.addmv_(e, x)
            p_dot_x.addmv_(e, e_x)
            p_dot_p += torch.stack([*map(torch.dot, e, e)])
            z_sum += part.sum(dim=-1)
            x_dot_x += x @ x
            d, r = part[1:] - x, e_x.square()
            x_dot_d.addmv_(d, x)
            d_under_r.addmv_(d, r)
            squares = d.square_()
            d_dot_d += squares.sum(dim=-1)
            squares_under_p.addmv_(squares, e_x)
            squares_under_r.addmv_(squares, r)
        return cls(
            z=z,
            temperature=temperature,
            logsumexp=largest / temperature + total.log()[:, None],
            own_z=own_z / total,
            z_under_p=z_under_p / total[0],
            x_under_own=x_under_own / total,
            p_dot_x=p_dot_x / total / total[0],
            p_dot_p=p_dot_p / total.square(),
            z_sum=z_sum,
            x_dot_x=x_dot_x,
            x_dot_d=x_dot_d,
            d_dot_d=d_dot_d,
            squares_under_p=squares_under_p / total[0],
            d_under_r=d_under_r / p_dot_p[0],
            squares_under_r=squares_under_r / p_dot_p[0],
        )

    @property
    def entropy(self) -> Tensor:
        """[lanes], in nats"""
        return self.logsumexp[:, 0] - self.own_z / self.temperature

    def logprob(self, tokens: Tensor) -> Tensor:
        """log p, in nats, of tokens, int64 [lanes, n] or [1, n]: float64 [lanes, n]."""
        lanes = len(self.z)
        chosen = self.z.gather(-1, tokens.expand(lanes, -1)).double()
        return chosen / self.temperature - self.logsumexp


def measure(h: Tensor, lanes: Distributions) -> dict[str, Tensor]:
    """Every number of `trace.records.Drift` but `top1`, `dp` and `logq`: float64 [variants] each.

    h: [lanes, hidden], the vectors for which z = W h. The estimates are second-order: Theorem 1
    (est_h, est_z), Theorem 2 (est_p) and Theorem 3 (est_kl).
    """
    h, temperature = h.double(), lanes.temperature
    dh = h[1:] - h[0]
    par_h, orth_h = split(h[0] @ h[0], dh @ h[0], dh.square().sum(dim=-1))
    par_z, orth_z = split(lanes.x_dot_x, lanes.x_dot_d, lanes.d_dot_d)
    # A common offset is a part along (1, …, 1): taking it out needs sums, not centred copies.
    size, x_sum, d_sum = lanes.z.shape[-1], lanes.z_sum[0], lanes.z_sum[1:] - lanes.z_sum[0]
    centred = split(
        lanes.x_dot_x - x_sum**2 / size,
        lanes.x_dot_d - x_sum * d_sum / size,
        lanes.d_dot_d - d_sum**2 / size,
    )
    # KL(p ‖ q) = E_p[log p - log q], and log p - log q = -dz / T + lse(y / T) - lse(x / T).
    dz_under_p = lanes.z_under_p[1:] - lanes.z_under_p[0]
    dz_under_q = lanes.own_z[1:] - lanes.x_under_own[1:]
    normalizer = (lanes.logsumexp[1:] - lanes.logsumexp[0])[:, 0]
    twice = 2 * temperature**2
    return {
        "cos_h": cosine(par_h, orth_h),
        "cos_z": cosine(par_z, orth_z),
        "cos_p": lanes.p_dot_x[1:] / (lanes.p_dot_p[0] * lanes.p_dot_p[1:]).sqrt(),
        "cos_z_centred": cosine(*centred),
        "par_h": par_h,
        "orth_h": orth_h,
        "par_z": par_z,
        "orth_z": orth_z,
        "est_h": orth_h.square() / 2,
        "est_z": orth_z.square() / 2,
        "est_p": (lanes.squares_under_r - lanes.d_under_r.square()) / twice,
        "kl": normalizer - dz_under_p / temperature,
        "kl_rev": dz_under_q / temperature - normalizer,
        "est_kl": (lanes.squares_under_p - dz_under_p.square()) / twice,
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
    x, y = streams[:, :1], streams[:, 1:]
    lengths = torch.linalg.vector_norm(streams, dim=-1)
    return (y @ x.mT)[..., 0] / (lengths[:, :1] * lengths[:, 1:])


def finite(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None
