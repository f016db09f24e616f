"""Parts of a Llama step that the torch step and the compiled one share."""

from typing import Any

import torch
from torch import Tensor, nn


def rotary_angles(rotary: nn.Module, x: Tensor, position: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine [1, 1, head dimension] of a position's rotary embedding, with the sign of the
    first half of the sine flipped."""
    cos, sin = rotary(x, torch.full((1, 1), position, device=x.device))
    half = cos.shape[-1] // 2
    return cos, torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)


class Norm:
    """RMS norm with the weight and ε of a model's own norm module."""

    def __init__(self, module: Any) -> None:
        self.weight, self.eps = module.weight, module.variance_epsilon

    def __call__(self, x: Tensor) -> Tensor:
        # The stock norm rounds before it multiplies by the weight.
        return self.weight * torch.rms_norm(x, self.weight.shape, None, self.eps)
