"""The norm and the rotary embedding of Llama models, for the steps that are written out."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache


def next_rotation(rotary: nn.Module, x: Tensor, cache: DynamicCache) -> tuple[Tensor, Tensor]:
    """Cosine and sine, [1, 1, head dimension] each, of the next position's rotary embedding; the
    first half of the sine is negated."""
    position = torch.full((1, 1), cache.get_seq_length(), device=x.device)
    cos, sin = rotary(x, position)
    half = cos.shape[-1] // 2
    return cos, torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)


class Norm:
    """RMSNorm with the rounding of the stock module."""

    def __init__(self, module: Any) -> None:
        self.weight, self.eps = module.weight, module.variance_epsilon

    def __call__(self, x: Tensor) -> Tensor:
        # The stock norm rounds before it multiplies by the weight.
        return self.weight * torch.rms_norm(x, self.weight.shape, None, self.eps)
