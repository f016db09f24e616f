"""KL divergence of next-token distributions, in float64."""

import torch
from torch import Tensor

_CHUNK = 2**17
"""Logits at a time, so that what is computed of them stays in a CPU's cache."""


def kl_divergence(log_p: Tensor, z: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p (log p − log q) in nats, float64 [positions], from log p, float64, and the
    logits z of q, both [positions, vocabulary], at temperature 1.

    A token with p = 0 adds nothing; one with q = 0 and p > 0 makes it infinite.
    """
    positions = max(1, _CHUNK // z.shape[-1])
    pairs = zip(log_p.split(positions), z.to(log_p.device).split(positions), strict=True)
    return torch.cat([_kl(*pair) for pair in pairs])


def _kl(log_p: Tensor, z: Tensor) -> Tensor:
    p = log_p.exp()
    terms = p * (log_p - torch.log_softmax(z.double(), dim=-1))
    return torch.where(p == 0, 0.0, terms).sum(dim=-1)
