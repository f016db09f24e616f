"""The noise floor: how far logits move when nothing but the batch changes."""

import torch
from transformers import PreTrainedModel

from ..foreign import foreign_code
from .kv_cache import new_cache, read

POSITIONS = 32
STEPS = 4


@torch.inference_mode()
def noise_floor(model: PreTrainedModel, rows: int, prompt: list[int]) -> float:
    """The largest difference of a logit between the model alone and as a row of `rows`.

    Raises `UserError` for a model that cannot be decoded.

    Over the beginning of the prompt and a few greedy steps, every row a control: the same model
    on the same tokens. What is smaller than this, rounding alone can flip.
    """
    tokens = torch.tensor([prompt[:POSITIONS]], device=model.device)
    caches = [new_cache(model) for _ in range(2)]
    floor, before = 0.0, 0
    family = model.config.model_type
    for _ in range(STEPS):
        with foreign_code(f"this {family} model does not read one token after another"):
            alone, batch = (
                read(model, tokens.repeat(count, 1), cache, before).float()
                for count, cache in zip((1, rows), caches, strict=True)
            )
        floor = max(floor, (batch - alone).abs().max().item())
        before += tokens.shape[1]
        tokens = alone.argmax(dim=-1, keepdim=True)
    return floor
