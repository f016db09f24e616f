"""Key-value caches of fixed room, for steps whose position is a tensor on the device."""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

STRIDE = 256
"""Positions that the room of a cache is a multiple of; attention masks must be aligned to 16."""


class FixedLayer(DynamicLayer):
    """Cache layer of fixed room, which never moves.

    It has two modes. A text of several positions is written after the `length` that it holds, and
    read as from any cache that grows. While `stepping`, one position is written where `position`
    says, and the whole room is returned, of which a mask hides what comes after; nothing that the
    host knows enters into such a step. Positions after `length` are finite, as a mask makes a
    number 0 but not what is not one.
    """

    def __init__(self, room: int, position: Tensor) -> None:
        """`position`: int64 [1], the position that a step writes; shared by all layers."""
        super().__init__()
        self.room = room
        self.length = 0
        """Positions filled."""
        self.stepping = False
        self._position = position
        self.buffers: tuple[Tensor, ...] = ()
        """Keys and values, [rows, heads, room, head dimension] each, once something is written."""

    @property
    def position_bytes(self) -> int:
        """Bytes of keys and values of one position in all rows."""
        return sum(buffer.nbytes for buffer in self.buffers) // self.room

    @property
    def is_compileable(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether transformers may not leave the mask of one position out."""
        return self.stepping

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        if not self.buffers:
            self.dtype, self.device = key_states.dtype, key_states.device
            self.buffers = self._allocate(key_states), self._allocate(value_states)
            self.is_initialized = True
        if self.stepping:
            return self.write(key_states, value_states)
        keys, values = self.buffers
        end = self.length + key_states.shape[-2]
        keys[:, :, self.length : end] = key_states
        values[:, :, self.length : end] = value_states
        self.length = end
        return keys[:, :, :end], values[:, :, :end]

    def write(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        """Write one position, [rows, heads, 1, head dimension] each, where `position` says; return
        the buffers."""
        keys, values = self.buffers
        keys.index_copy_(2, self._position, key_states)
        values.index_copy_(2, self._position, value_states)
        return keys, values

    def get_seq_length(self) -> Any:
        return self._position[0] if self.stepping else self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return (self.room if self.stepping else self.length + query_length), 0

    def crop(self, tokens_to_remove: int) -> None:
        """Take the last -positions off, as transformers' layers do."""
        self.set_length(self.length + tokens_to_remove)

    def set_length(self, positions: int) -> None:
        """Keep so many positions; a step may have filled more than the layer knows of."""
        if positions < self.length:
            for buffer in self.buffers:
                buffer[:, :, positions : self.length] = 0
        self.length = positions

    def _allocate(self, states: Tensor) -> Tensor:
        rows, heads, _, width = states.shape
        # Heads inside of positions, as attention over rows of unequal length reads them.
        return states.new_zeros(rows, self.room, heads, width).transpose(1, 2)


def room_for(positions: int) -> int:
    """Room of a cache that holds so many positions, and one more for a step that is tried out."""
    return -(-(positions + 1) // STRIDE) * STRIDE


def new_fixed_cache(model: PreTrainedModel, room: int, position: Tensor) -> DynamicCache:
    """An empty cache of fixed room; `position`, int64 [1], is what its steps write."""
    cache = DynamicCache(config=model.config)
    layers: list[Any] = [FixedLayer(room, position) for _ in cache.layers]
    cache.layers = layers
    return cache


def room_of(cache: DynamicCache) -> int:
    """Positions that a cache of fixed room can hold; 0 for others."""
    layer = cache.layers[0]
    return layer.room if isinstance(layer, FixedLayer) else 0


def empty(cache: DynamicCache) -> None:
    """Forget everything, in place: what a step was captured with stays where it is."""
    for layer in _layers(cache):
        for buffer in layer.buffers:
            buffer.zero_()
        layer.length = 0


def set_length(cache: DynamicCache, positions: int) -> None:
    """Set the number of positions that are filled, after a step."""
    for layer in _layers(cache):
        layer.set_length(positions)


def clear_position(cache: DynamicCache, position: int) -> None:
    """Make keys and values of one position 0."""
    for layer in _layers(cache):
        for buffer in layer.buffers:
            buffer[:, :, position] = 0


def finite_after(cache: DynamicCache, position: int) -> bool:
    """Whether the keys and values filled after a position are all finite numbers; waits once."""
    sums = [
        buffer[:, :, position : layer.length].sum(dtype=torch.float32)
        for layer in _layers(cache)
        for buffer in layer.buffers
    ]
    return bool(torch.stack(sums).isfinite().all())


def fixed_cache_bytes(cache: DynamicCache, *, whole_room: bool) -> int:
    """Bytes of keys and values that a step reads: those of the positions that are filled, or of all
    that there is room for."""
    return sum(
        layer.position_bytes * (layer.room if whole_room else layer.length)
        for layer in _layers(cache)
    )


def _layers(cache: DynamicCache) -> list[Any]:
    return cache.layers
