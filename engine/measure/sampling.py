"""Sampling of the next token: Gumbel-max with noise that all lanes share."""

import torch
from torch import Tensor

from ..trace.records import Sampling
from .top_k import argmax


def sample(z: Tensor, sampling: Sampling, noise: Tensor) -> Tensor:
    """Sample one token per lane, int64 [lanes], from logits z, float32 [lanes, vocabulary].

    The Gumbel noise, float32 [vocabulary], is the same for every lane, keyed by seed and step:
    lanes differ because their distributions differ and for no other reason, and a step decoded
    again gives the same tokens.
    """
    scores = z / sampling.temperature
    if sampling.top_k:
        scores = keep_top_k(scores, sampling.top_k)
    if sampling.top_p < 1:
        scores = keep_top_p(scores, sampling.top_p)
    return argmax(scores + noise)


def keep_top_k(scores: Tensor, k: int) -> Tensor:
    """Set all but each row's k highest scores, and what ties with the last, to -inf."""
    lowest = scores.topk(min(k, scores.shape[-1]), dim=-1).values[:, -1:]
    return scores.masked_fill(scores < lowest, -torch.inf)


def keep_top_p(scores: Tensor, top_p: float) -> Tensor:
    """Keep each row's most probable tokens until their probabilities reach `top_p`."""
    ordered, order = scores.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    return scores.masked_fill((before >= top_p).gather(-1, order.argsort(dim=-1)), -torch.inf)


def draw_gumbel(noise: Tensor, seed: int, step: int) -> None:
    """Fill float32 [size] with standard Gumbel noise: argmax(log p + noise) is a sample of p."""
    # The CPU's generator reads 32 bits of its seed, so seed and step are mixed into those.
    key = (seed * 0x9E3779B1 + step) % 2**32
    generator = torch.Generator(noise.device).manual_seed(key)
    noise.uniform_(generator=generator)
    # A uniform number may be 0, whose logarithm would be infinite.
    noise.clamp_min_(torch.finfo(noise.dtype).tiny).log_().neg_().log_().neg_()
