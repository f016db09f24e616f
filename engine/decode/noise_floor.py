"""The noise floor: how far logits move when only the size of the batch changes."""

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from ..foreign import foreign_code
from .kv_cache import new_cache, read

MAX_POSITIONS = 32
"""Positions of the prompt that are read at most."""
STEPS = 4


@torch.inference_mode()
def noise_floor(
    model: PreTrainedModel, rows: int, prompt: list[int], report: Callable[[float], None]
) -> float:
    """Largest difference of a logit between the model alone and as one of `rows` rows.

    Measured over the beginning of the prompt and a few greedy steps, with the same tokens in every
    row. Rounding alone can flip what is smaller. Raises `UserError` for a model that cannot be
    decoded.
    """
    tokens = torch.tensor([prompt[:MAX_POSITIONS]], device=model.device)
    caches = [new_cache(model) for _ in range(2)]
    floor, length = 0.0, 0
    family = model.config.model_type
    for step in range(STEPS):
        report(step / STEPS)
        with foreign_code(f"this {family} model does not read one token after another"):
            alone, batch = (
                read(model, tokens.repeat(count, 1), cache, length).float()
                for count, cache in zip((1, rows), caches, strict=True)
            )
        floor = max(floor, (batch - alone).abs().max().item())
        length += tokens.shape[1]
        tokens = alone.argmax(dim=-1, keepdim=True)
    return floor
