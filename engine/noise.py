"""The noise floor: how far logits move when nothing but the batch changes."""

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

POSITIONS = 32
STEPS = 4


@torch.inference_mode()
def noise_floor(model: PreTrainedModel, rows: int, prompt: list[int]) -> float:
    """The largest difference of a logit between the model alone and as a row of `rows`.

    Over the beginning of the prompt and a few greedy steps, every row a control: the same model
    on the same tokens. What is smaller than this, rounding alone can flip.
    """
    tokens = torch.tensor([prompt[:POSITIONS]], device=model.device)
    caches = [DynamicCache(config=model.config) for _ in range(2)]
    floor = 0.0
    for _ in range(STEPS):
        alone, batch = (
            _logits(model, tokens.repeat(count, 1), cache)
            for count, cache in zip((1, rows), caches, strict=True)
        )
        floor = max(floor, (batch - alone).abs().max().item())
        tokens = alone.argmax(dim=-1, keepdim=True)
    return floor


def _logits(model: PreTrainedModel, tokens: Tensor, cache: DynamicCache) -> Tensor:
    out = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return out.logits[:, -1].float()
