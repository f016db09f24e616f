"""Attention of one position over a cache, on a CPU.

The stock kernel is made for prompts: of one position it reads keys and values again for every query
that shares them. Grouped as if they were positions, those queries read them once. On some
processors the kernel is slow even then, in bfloat16 several times, and two products are not.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ..model.attention import (
    STOCK_ATTENTION,
    Attend,
    attend_by_kernel,
    choose_attention,
    chosen_attention,
)
from .race import plainly_faster

RACE_POSITIONS = 1000
"""Positions in each cache of the race between two ways to attend."""
RACE_CACHES = 8
"""Caches read in turn, so that none is in the processor's caches from before."""
RACE_KEY_HEADS = 4
"""The most key heads of a cache, for the sake of memory."""


def attend_by_products(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
) -> Tensor:
    """Attend by two matrix products, in float32."""
    scores = query.float() @ key.float().transpose(2, 3)
    scores *= scaling
    if mask is not None and mask.dtype == torch.bool:
        scores.masked_fill_(~mask, float("-inf"))
    elif mask is not None:
        scores += mask
    return (scores.softmax(dim=-1) @ value.float()).to(query.dtype)


KERNEL, PRODUCTS = "kernel", "products"
ATTENTIONS: dict[str, Attend] = {KERNEL: attend_by_kernel, PRODUCTS: attend_by_products}


class FastAttention:
    """Replace stock attention on CPU models between `install` and `remove`.

    It has the stock attention's name: some models leave a mask out, DeepSeek's indexer for one,
    where the attention has a name that they do not know.
    """

    def __init__(self, models: Iterable[PreTrainedModel], name: str) -> None:
        self._attend = ATTENTIONS[name]
        self._modules = [
            module for model in models if _is_stock(model) for module in model.modules()
        ]

    def install(self) -> None:
        for module in self._modules:
            choose_attention(module, self._attend)

    def remove(self) -> None:
        for module in self._modules:
            choose_attention(module, None)


@torch.inference_mode()
def faster_attention(models: Mapping[PreTrainedModel, int]) -> str:
    """PRODUCTS if they are plainly faster for the number of rows of each model, else KERNEL."""
    products, kernel = [], []
    for model, rows in models.items():
        if not _is_stock(model):
            continue
        config = model.config.get_text_config()
        # The first layer's: those of some models differ.
        config = getattr(config, "per_layer_config", [config])[0]
        heads = config.num_attention_heads
        key_heads = getattr(config, "num_key_value_heads", None) or heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        raced_heads = min(key_heads, RACE_KEY_HEADS)
        query = torch.ones(rows, raced_heads, heads // key_heads, width, dtype=model.dtype)
        cache_shape = rows, raced_heads, RACE_POSITIONS, width
        caches = torch.ones(RACE_CACHES, 2, *cache_shape, dtype=model.dtype)
        for key, value in caches:
            products.append(partial(attend_by_products, query, key, value, None, 1.0))
            kernel.append(partial(attend_by_kernel, query, key, value, None, 1.0))
    return PRODUCTS if plainly_faster(products, kernel) else KERNEL


def _is_stock(model: PreTrainedModel) -> bool:
    return model.device.type == "cpu" and model.config._attn_implementation == STOCK_ATTENTION


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Stand in for transformers' `sdpa_attention_forward`.

    query: [rows, heads, positions, width]; returns [rows, positions, heads, width].
    """
    attend = chosen_attention(module)
    rows, heads, positions, width = query.shape
    if attend is None or positions > 1 or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
    grouped = query.reshape(rows, key.shape[1], -1, width)
    if attention_mask is not None:
        attention_mask = attention_mask.expand(rows, heads, 1, -1)
        attention_mask = attention_mask.reshape(*grouped.shape[:3], -1)
    scale = width**-0.5 if scaling is None else scaling
    attended = attend(grouped, key, value, attention_mask, scale)
    return attended.reshape(rows, 1, heads, -1), None


AttentionInterface.register(STOCK_ATTENTION, _attention)
