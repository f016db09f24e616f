"""The attention of one position over a cache, which each attention module can have its own way of.

Queries that share a key head are grouped as if they were positions: keys and values are read once
for all of them.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

STOCK_ATTENTION = "sdpa"
"""The attention implementation of transformers whose modules can be given another way."""

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]
"""Function of queries [rows, key heads, queries, width], keys and values [rows, key heads,
positions, width], a mask [rows, key heads, queries, positions], bool or added to the scores, and
the scores' factor; returns a tensor of the queries' shape and dtype."""

_ATTRIBUTE = "prunetui_attend"


def attend_by_kernel(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
) -> Tensor:
    """Attend with torch's own kernel."""
    return scaled_dot_product_attention(query, key, value, mask, scale=scaling)


def chosen_attention(module: nn.Module) -> Attend | None:
    """What attends in the stock attention's place; None for the stock attention."""
    return getattr(module, _ATTRIBUTE, None)


def choose_attention(module: nn.Module, attend: Attend | None) -> None:
    """Set what attends in the stock attention's place; None puts the stock attention back."""
    if attend is None:
        vars(module).pop(_ATTRIBUTE, None)
    else:
        setattr(module, _ATTRIBUTE, attend)
