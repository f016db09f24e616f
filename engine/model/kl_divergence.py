"""KL divergence of next-token distributions, in float64."""

import torch
from torch import Tensor

_CHUNK = 2**17
"""Logits at a time, so that what is computed of them stays in a CPU's cache."""


def log_softmax(z: Tensor, temperature: float = 1.0) -> Tensor:
    """log p, float64, of logits z at temperature T, over their last dimension."""
    return torch.log_softmax(z.double() / temperature, dim=-1)


def kl_divergence(log_p: Tensor, z: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(p ‖ q) = Σ p (log p − log q) in nats, float64 [positions], from log p, float64, and the
    logits z of q, both [positions, vocabulary].

    A token with p = 0 adds nothing; one with q = 0 and p > 0 makes it infinite. NaN where one of
    the two has no softmax.
    """
    positions = max(1, _CHUNK // z.shape[-1])
    pairs = zip(log_p.split(positions), z.to(log_p.device).split(positions), strict=True)
    return torch.cat([_kl(log_p, log_softmax(z, temperature)) for log_p, z in pairs])


def rounding_kl(z: Tensor, temperature: float = 1.0) -> float:
    """KL(p ‖ q) in nats that is expected where q's logits are z, those of p [vocabulary], with no
    other change than the rounding to their dtype.

    ½ Σ p (1 − p) s², to second order, where s = spacing / (√12 T) is the standard deviation of an
    even distribution over the spacing of the dtype's numbers at a logit.
    """
    p = log_softmax(z, temperature).exp()
    # |z| is at least half of 2 to this power.
    power = torch.frexp(z.double().abs()).exponent.double()
    spacing = torch.finfo(z.dtype).eps * torch.exp2(power - 1)
    variance = (spacing / temperature).square() / 12
    return 0.5 * float(torch.where(p == 0, 0.0, p * (1 - p) * variance).sum())


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    p = log_p.exp()
    return torch.where(p == 0, 0.0, p * (log_p - log_q)).sum(dim=-1)
