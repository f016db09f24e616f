"""The attention of one position over a cache, which each attention module can have its own way of.

Queries that share a key head are grouped as if they were positions: keys and values are read once
for all of them. The stock attention repeats them where torch's kernel takes no groups, in float32
and on older GPUs.
"""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from .installed import Installed

STOCK_ATTENTION = "sdpa"
"""The attention implementation of transformers whose modules can be given another way."""

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]
"""Function of queries [rows, key heads, queries, width], keys and values [rows, key heads,
positions, width], a mask that can be broadcast to [rows, key heads, queries, positions], bool or
added to the scores, and the scores' factor; returns a tensor of the queries' shape and dtype."""

_ATTRIBUTE = "prunetui_attend"


def attend_by_kernel(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
) -> Tensor:
    """Attend with torch's own kernel."""
    return scaled_dot_product_attention(query, key, value, mask, scale=scaling)


class GroupedAttention(Installed):
    """Replace stock attention of one position, queries grouped by key head.

    It has the stock attention's name: some models leave a mask out, DeepSeek's indexer for one,
    where the attention has a name that they do not know.
    """

    def __init__(
        self, models: Iterable[PreTrainedModel], attend: Attend = attend_by_kernel
    ) -> None:
        self._attend = attend
        self._modules = [
            module for model in models if has_stock_attention(model) for module in model.modules()
        ]

    def install(self) -> None:
        for module in self._modules:
            choose_attention(module, self._attend)

    def remove(self) -> None:
        for module in self._modules:
            choose_attention(module, None)


def has_stock_attention(model: PreTrainedModel) -> bool:
    """Whether the model's attention is the one that can be replaced."""
    return model.config._attn_implementation == STOCK_ATTENTION


def chosen_attention(module: nn.Module) -> Attend | None:
    """What attends in the stock attention's place; None for the stock attention."""
    return getattr(module, _ATTRIBUTE, None)


def choose_attention(module: nn.Module, attend: Attend | None) -> None:
    """Set what attends in the stock attention's place; None puts the stock attention back."""
    if attend is None:
        vars(module).pop(_ATTRIBUTE, None)
    else:
        setattr(module, _ATTRIBUTE, attend)


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
    key_heads = key.shape[1]
    if attention_mask is not None and attention_mask.shape[1] > 1:
        # [rows, heads, 1, positions] as a view; a mask of one head is broadcast as it is.
        attention_mask = attention_mask.unflatten(1, (key_heads, -1)).squeeze(3)
    grouped = query.reshape(rows, key_heads, -1, width)
    scale = width**-0.5 if scaling is None else scaling
    attended = attend(grouped, key, value, attention_mask, scale)
    return attended.reshape(rows, 1, heads, -1), None


AttentionInterface.register(STOCK_ATTENTION, _attention)
