"""Key-value caches: one that grows in place, and one that never does."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, StaticLayer

from .errors import UserError

LEAST_ROOM = 256
"""Positions."""


class RoomyLayer(DynamicLayer):
    """Writes new positions behind the old ones, into room that doubles when it is full.

    The stock layer copies its whole cache at every step, which soon costs more than reading it.
    `keys` and `values` are views of what is filled: [rows, heads, positions, head dimension].
    """

    def __init__(self) -> None:
        super().__init__()
        self._room: list[Tensor] = []
        """For keys and values: [rows, heads, room, head dimension]."""
        self._common: Tensor | None = None
        """None if that is not known."""

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._common = None
        length = self.get_seq_length()
        keys, values = self._extend(key_states, value_states)
        keys[..., length:, :] = key_states
        values[..., length:, :] = value_states
        return keys, values

    def extend(self, like: Tensor, heads: int, width: int) -> tuple[Tensor, Tensor, Tensor, int]:
        """Have one more position, to be written: the rooms of keys and values, [rows, heads, room,
        width], in the dtype and with the rows of `like`; what rows hold in common, to be kept true
        by who writes it; and the positions filled.

        In common, int64 [rows, 1 + heads], are of each row another one, and of each head how many
        first positions are known to have the same keys and values in both.
        """
        before = self.get_seq_length() if self.is_initialized else 0
        if self._room and before < self._room[0].shape[-2]:
            self._show(before + 1)
        else:
            one = like.new_empty(len(like), heads, 1, width)
            if not self.is_initialized:
                self.lazy_initialization(one, one)
            self._extend(one, one)
        keys, values = self._room
        if self._common is None:
            self._common = _common(keys[:, :, :before], values[:, :, :before])
        return keys, values, self._common, before + 1

    def _extend(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        """`keys` and `values` with as many positions more, to be written."""
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if not self._room or end > self._room[0].shape[-2]:
            self._room = [_more_room(new, 2 * end) for new in (key_states, value_states)]
            for room, filled in zip(self._room, (self.keys, self.values), strict=True):
                if length and filled is not None:
                    room[..., :length, :] = filled
        return self._show(end)

    def _show(self, positions: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (room.narrow(-2, 0, positions) for room in self._room)
        return self.keys, self.values


class TokensLayer(DynamicLayer):
    """The tokens themselves, for a model that reads all of them again at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: Tensor | None = None
        """int64 [rows, positions]; None while there are none."""

    def extend(self, tokens: Tensor) -> Tensor:
        """Append int64 [rows, positions]; gives all of them."""
        self.tokens = tokens if self.tokens is None else torch.cat([self.tokens, tokens], dim=1)
        return self.tokens

    def get_seq_length(self) -> int:
        return 0 if self.tokens is None else self.tokens.shape[1]

    def crop(self, tokens_to_remove: int) -> None:
        """Keep all but the last -`tokens_to_remove` positions."""
        assert self.tokens is not None
        self.tokens = self.tokens[:, :tokens_to_remove]


def _common(keys: Tensor, values: Tensor) -> Tensor:
    rows, heads, length, _ = keys.shape
    common = torch.zeros(rows, 1 + heads, dtype=torch.int64)
    for row in range(1, rows):
        for other in range(row):
            if common[row, 1] == length:
                break
            alike = _alike(keys[row], keys[other], length)
            alike = _alike(values[row], values[other], alike)
            if alike > common[row, 1]:
                common[row, 0], common[row, 1:] = other, alike
    return common


def _alike(one: Tensor, other: Tensor, positions: int) -> int:
    """How many of the first positions of [heads, positions, width] are the same."""
    begin, size = 0, 1
    while begin < positions and size:
        end = min(begin + size, positions)
        if torch.equal(one[:, begin:end], other[:, begin:end]):
            begin, size = end, 2 * size
        else:
            size //= 2
    return begin


def _more_room(new: Tensor, positions: int) -> Tensor:
    return new.new_empty((*new.shape[:-2], max(LEAST_ROOM, positions), new.shape[-1]))


def new_cache(model: PreTrainedModel) -> DynamicCache:
    """Layers of the kinds that the model's config asks for."""
    cache = DynamicCache(config=model.config)
    cache.layers = [
        RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def new_tokens_cache(model: PreTrainedModel) -> DynamicCache:
    """No keys and values: all tokens are read again at every step."""
    cache = DynamicCache(config=model.config)
    cache.layers[:] = [TokensLayer()]
    return cache


def new_static_cache(model: PreTrainedModel, positions: int) -> DynamicCache:
    """Keys and values of a fixed shape, which a compiled step needs.

    A layer with a sliding window keeps all positions too; the mask hides those behind the window.
    Raises `UserError` for a model with other layers.
    """
    cache = DynamicCache(config=model.config)
    for number, layer in enumerate(cache.layers):
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise UserError(
                f"{model.config.model_type} keeps more than keys and values, "
                "which a compiled step cannot; leave --compile out"
            )
        cache.layers[number] = StaticLayer(max_cache_len=positions)
    return cache


def length(cache: DynamicCache) -> int:
    """Positions that are filled."""
    return int(cache.get_seq_length())


def can_crop(caches: list[DynamicCache]) -> bool:
    return all(_croppable(layer) for cache in caches for layer in cache.layers)


def crop(caches: list[DynamicCache], positions: int) -> bool:
    """Take the last positions off; False, and nothing done, if a layer cannot go back.

    A sliding window forgets what a crop past its length would need, a recurrent state all.
    """
    if not can_crop(caches):
        return False
    for cache in caches:
        for layer in cache.layers:
            if isinstance(layer, StaticLayer):
                layer.cumulative_length.sub_(positions)
            elif isinstance(layer, DynamicLayer):
                layer.crop(-positions)
    return True


def remember(caches: list[DynamicCache]) -> Callable[[], None]:
    """What puts the caches back to where they are now, after they were cropped and have read again
    what they had read: the same keys and values, in the same place."""
    layers: list[Any] = [layer for cache in caches for layer in cache.layers]
    states = [dict(vars(layer)) for layer in layers]
    for state in states:
        # A step writes into it.
        if state.get("_common") is not None:
            state["_common"] = state["_common"].clone()
    # A compiled step is bound to the tensor that counts.
    counted = [
        layer.cumulative_length.clone() if isinstance(layer, StaticLayer) else None
        for layer in layers
    ]

    @torch.inference_mode()
    def put_back() -> None:
        for layer, state, count in zip(layers, states, counted, strict=True):
            vars(layer).update(state)
            if count is not None:
                layer.cumulative_length.copy_(count)

    return put_back


def _croppable(layer: object) -> bool:
    if isinstance(layer, DynamicSlidingWindowLayer):
        return layer.get_seq_length() < layer.sliding_window
    return type(layer) in (RoomyLayer, StaticLayer, TokensLayer)
