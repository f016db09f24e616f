"""Attention of one position over a cache, on a CPU.

The stock kernel is made for prompts. At one position it leaves most of the time on the table, in
bfloat16 nearly all of it, and the more so the longer the cache; two batched products do not.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

STOCK = "sdpa"
OURS = "prunetui"


class FastAttention:
    """Has models on a CPU that use the stock attention use this one; `remove` puts it back."""

    def __init__(self, models: Iterable[PreTrainedModel]) -> None:
        self._models = [
            model
            for model in models
            if model.device.type == "cpu" and model.config._attn_implementation == STOCK
        ]
        for model in self._models:
            model.set_attn_implementation(OURS)

    def remove(self) -> None:
        for model in self._models:
            model.set_attn_implementation(STOCK)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query: [rows, heads, positions, dimension]; key and value: [rows, key heads, cached, …].

    Returns [rows, positions, heads, dimension]. Softmax and products are in float32.
    """
    rows, heads, positions, width = query.shape
    if positions > 1 or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
    # The queries that share a key head are the rows of one product.
    grouped = query.float().reshape(rows, key.shape[1], -1, width)
    scores = grouped @ key.float().transpose(2, 3)
    scores *= width**-0.5 if scaling is None else scaling
    if attention_mask is not None:
        mask = attention_mask.expand(rows, heads, 1, -1).reshape(scores.shape)
        if mask.dtype == torch.bool:
            scores.masked_fill_(~mask, float("-inf"))
        else:
            scores += mask
    attended = scores.softmax(dim=-1) @ value.float()
    return attended.to(query.dtype).reshape(rows, 1, heads, -1), None


AttentionInterface.register(OURS, attend)
AttentionMaskInterface.register(OURS, sdpa_mask)
