"""Attention of one position over a cache, on a CPU.

On some processors torch's kernel is slow even with grouped queries, in bfloat16 several times, and
two products are not.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..model.attention import Attend, attend_by_kernel, has_stock_attention
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


@torch.inference_mode()
def faster_attention(models: Mapping[PreTrainedModel, int]) -> str:
    """PRODUCTS if they are plainly faster for the number of rows of each model, else KERNEL."""
    products, kernel = [], []
    for model, rows in models.items():
        if not has_stock_attention(model):
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
