"""Key-value caches: one that grows in place, and one that never does."""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, StaticLayer

from ..errors import UserError
from ..model.rope import ChangingRope

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


class TokenLayer:
    """The tokens themselves, int64 [rows, positions], which are all read again at every step: for
    models that keep no keys and values, or keep them in a way of their own."""

    def __init__(self) -> None:
        self.tokens: Tensor | None = None

    def extend(self, tokens: Tensor) -> Tensor:
        before = [] if self.tokens is None else [self.tokens]
        self.tokens = torch.cat([*before, tokens], dim=1)
        return self.tokens

    def crop(self, positions: int) -> None:
        """Take the last -positions off, as transformers' layers do."""
        if self.tokens is not None:
            self.tokens = self.tokens[:, :positions]


def new_cache(model: PreTrainedModel, reread: bool = False) -> DynamicCache:
    """Layers of the kinds that the model's config asks for; with `reread`, and for a model that
    takes none, the tokens alone."""
    if reread or not _takes_cache(model):
        cache = DynamicCache()
        layers: list[Any] = [TokenLayer()]
        cache.layers = layers
        return cache
    cache = DynamicCache(config=model.config)
    cache.layers = [
        RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def read(model: PreTrainedModel, tokens: Tensor, cache: DynamicCache, before: int) -> Tensor:
    """Read int64 [rows, positions] behind what the cache holds, `before` positions; the logits of
    the last position, [rows, vocabulary]."""
    if isinstance(layer := cache.layers[0], TokenLayer):
        tokens = layer.extend(tokens)
        generates: Any = model
        inputs = generates.prepare_inputs_for_generation(
            tokens, attention_mask=torch.ones_like(tokens), use_cache=False
        )
        if inputs["input_ids"].shape != tokens.shape:
            raise UserError(
                f"this {model.config.model_type} model reads more than the tokens before each one; "
                "prunetui does not know this family"
            )
        return model(**inputs).logits[:, -1]
    inputs: dict[str, Any] = {_cache_argument(model): cache}
    # Most models count the cache's positions themselves, but some begin at 0 again. A compiled step
    # would be compiled for each position.
    if not isinstance(layer, StaticLayer) and "position_ids" in _parameters(type(model)):
        positions = torch.arange(before, before + tokens.shape[1], device=tokens.device)
        inputs["position_ids"] = positions.expand_as(tokens)
    out = model(input_ids=tokens, **inputs, use_cache=True, logits_to_keep=1)
    return out.logits[:, -1]


def _takes_cache(model: PreTrainedModel) -> bool:
    """Others swallow what they are given, and read each token as if it were the first."""
    kind: Any = type(model)
    return kind._supports_default_dynamic_cache() and _cache_argument(model) in _parameters(kind)


@functools.cache
def _parameters(kind: type[PreTrainedModel]) -> Collection[str]:
    """The names of what a forward pass takes."""
    return inspect.signature(kind.forward).parameters.keys()


def _cache_argument(model: PreTrainedModel) -> str:
    """The name that `generate` gives the cache by."""
    return "cache_params" if "mamba" in type(model).__name__.lower() else "past_key_values"


def new_static_cache(model: PreTrainedModel, positions: int) -> DynamicCache:
    """Keys and values of a fixed shape, which a compiled step needs.

    A layer with a sliding window keeps all positions too; the mask hides those behind the window.
    Raises `UserError` for a model with other layers.
    """
    if ChangingRope(model).limit is not None:
        raise UserError(
            f"this {model.config.model_type} model's positions change with what is read, which a "
            "compiled step cannot; leave --compile out"
        )
    cache = DynamicCache(config=model.config)
    for number, layer in enumerate(cache.layers):
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise UserError(
                f"{model.config.model_type} keeps more than keys and values, "
                "which a compiled step cannot; leave --compile out"
            )
        cache.layers[number] = StaticLayer(max_cache_len=positions)
    return cache


def is_recurrent(cache: DynamicCache) -> bool:
    """It has states that some models begin anew where several tokens are read at once."""
    return any(hasattr(layer, "recurrent_states") for layer in cache.layers)


def can_crop(caches: list[DynamicCache]) -> bool:
    return all(_croppable(layer) for cache in caches for layer in cache.layers)


def crop(caches: list[DynamicCache], positions: int) -> bool:
    """Take the last positions off; False, and nothing done, if a layer cannot go back.

    A sliding window forgets what a crop past its length would need, a recurrent state all.
    """
    if not can_crop(caches):
        return False
    for cache in caches:
        layers: list[Any] = cache.layers
        for layer in layers:
            if isinstance(layer, StaticLayer):
                layer.cumulative_length.sub_(positions)
            else:
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
    # Layers of kinds made from these keep more.
    if type(layer) is DynamicSlidingWindowLayer:
        return layer.get_seq_length() < layer.sliding_window
    return type(layer) in (RoomyLayer, StaticLayer, TokenLayer)
