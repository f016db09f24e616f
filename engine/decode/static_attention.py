"""Attention of one position over caches of fixed room, up to a position that the device knows."""

import dataclasses
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention

from .cuda_graph import capture

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shape:
    """Shape of the attention of one layer, and what a step of it runs on."""

    rows: int
    heads: int
    """Heads of queries."""
    key_heads: int
    width: int
    """Head dimension."""
    room: int
    """Positions that the cache has room for."""
    window: int | None
    """Positions that a query sees, itself included; None if all before it."""
    scaling: float
    """Factor of the scores."""
    dtype: torch.dtype
    device: torch.device


class MaskedAttention:
    """Torch's kernel with a mask over the whole room, queries of one key head together.

    Keys and values are read once for all queries that share them, and never repeated.
    """

    def __init__(self, shape: Shape, position: Tensor) -> None:
        """`position`: int64 [1], the position of the queries."""
        self._shape = shape
        self._position = position
        self._places = torch.arange(shape.room, device=shape.device)
        self._zeros = torch.zeros(shape.room, dtype=shape.dtype, device=shape.device)
        self._mask = self._zeros

    def begin(self) -> None:
        """Read the position, once for all layers that have this attention."""
        hidden = self._places > self._position
        if self._shape.window is not None:
            hidden = hidden | (self._places <= self._position - self._shape.window)
        # Added to the scores: of truth values the kernel would make such a mask in every layer.
        self._mask = self._zeros.masked_fill(hidden, -torch.inf)

    def __call__(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend: [rows, heads, width] over [rows, key heads, room, width]; returns as the
        queries."""
        grouped = query.view(len(query), self._shape.key_heads, -1, self._shape.width)
        mask = self._mask.expand(1, 1, 1, -1)
        return scaled_dot_product_attention(
            grouped, keys, values, mask, scale=self._shape.scaling
        ).reshape(query.shape)


class VarlenAttention:
    """Torch's flash kernel for rows of unequal length, which reads what is filled alone."""

    def __init__(self, shape: Shape, position: Tensor) -> None:
        """`position`: int64 [1], the position of the queries."""
        self._shape = shape
        self._position = position
        options = {"dtype": torch.int32, "device": shape.device}
        self._query_begins = torch.arange(shape.rows + 1, **options)
        self._key_begins = self._query_begins * shape.room
        self._filled = torch.ones(shape.rows, **options)

    def begin(self) -> None:
        """Read the position, once for all layers that have this attention."""
        self._filled.copy_((self._position + 1).expand(self._shape.rows))

    def __call__(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend: [rows, heads, width] over [rows, key heads, room, width]; returns as the
        queries."""
        shape = self._shape
        flat = (shape.rows * shape.room, shape.key_heads, shape.width)
        # The caches lie in memory with their heads inside of the positions.
        attended = varlen_attn(
            query,
            keys.transpose(1, 2).view(flat),
            values.transpose(1, 2).view(flat),
            self._query_begins,
            self._key_begins,
            1,
            shape.room,
            scale=shape.scaling,
            enable_gqa=True,
            seqused_k=self._filled,
        )
        assert isinstance(attended, Tensor)
        return attended


StaticAttention = MaskedAttention | VarlenAttention


def choose_attention(shape: Shape) -> Callable[[Shape, Tensor], StaticAttention]:
    """The fastest attention that is right on this device, as its constructor."""
    # With a window it would read the keys again for each query that shares them.
    flash = shape.device.type == "cuda" and shape.dtype.itemsize == 2 and shape.window is None
    if flash and _varlen_is_right(dataclasses.replace(shape, room=256)):
        return VarlenAttention
    return MaskedAttention


@functools.cache
@torch.inference_mode()
def _varlen_is_right(shape: Shape) -> bool:
    """Whether the flash kernel runs here, in a graph too, and attends as the other does.

    Which cards, head dimensions and builds of torch have it is nowhere to be asked.
    """
    generator = torch.Generator(shape.device).manual_seed(0)
    options = {"dtype": shape.dtype, "device": shape.device, "generator": generator}
    query = torch.randn(shape.rows, shape.heads, shape.width, **options)
    keys, values = (
        torch.randn(shape.rows, shape.room, shape.key_heads, shape.width, **options).transpose(1, 2)
        for _ in range(2)
    )
    position = torch.tensor([shape.room // 3], device=shape.device)
    ways = [kind(shape, position) for kind in (VarlenAttention, MaskedAttention)]

    def attend(way: StaticAttention) -> Tensor:
        way.begin()
        return way(query, keys, values)

    try:
        launch, attended = capture(lambda: attend(ways[0]), shape.device)
        launch()
        expected = attend(ways[1]).float()
        error = (attended.float() - expected).square().mean() / expected.square().mean()
    except Exception:
        log.info("no varlen attention", exc_info=True)
        return False
    # Rounding to 8 bits is some 1e-6 of the mean square; a wrong mask is some 1e-1.
    return error.item() < 1e-4
