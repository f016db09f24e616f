"""Key-value caches: one that grows in place, and one that keeps the tokens."""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ..errors import UserError
from ..model.rope import ChangingRope
from .fixed_cache import FixedLayer

MIN_CAPACITY = 256
"""Positions that a new cache has memory for at least."""


class GrowingLayer(DynamicLayer):
    """Cache layer that writes new positions in place and doubles its capacity when it is full.

    A capacity that is known to be needed is allocated at once. The stock layer copies its whole
    cache at every step, which soon costs more than reading it.
    `keys` and `values` are views of the filled part: [rows, heads, positions, head dimension].
    """

    def __init__(self, capacity: int = 0) -> None:
        super().__init__()
        self._capacity = max(MIN_CAPACITY, capacity)
        self._buffers: list[Tensor] = []
        """Keys and values, [rows, heads, capacity, head dimension] each."""
        self._shared_prefix: Tensor | None = None
        """Prefixes that rows share, in the form that `extend` returns; None if not known."""

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._shared_prefix = None
        length = self.get_seq_length()
        keys, values = self._grow(key_states, value_states)
        keys[..., length:, :] = key_states
        values[..., length:, :] = value_states
        return keys, values

    def extend(self, like: Tensor, heads: int, width: int) -> tuple[Tensor, Tensor, Tensor, int]:
        """Add one position for the caller to write: buffers of keys and values, shared prefix,
        length with the new position.

        The buffers are [rows, heads, capacity, width], with the dtype and the rows of `like`. The
        shared prefix, int64 [rows, 1 + heads], names for each row an earlier row, and for each
        head how many first positions have equal keys and values in both; whoever writes the
        position keeps it true.
        """
        length = self.get_seq_length() if self.is_initialized else 0
        if self._buffers and length < self._buffers[0].shape[-2]:
            self._set_length(length + 1)
        else:
            position = like.new_empty(len(like), heads, 1, width)
            if not self.is_initialized:
                self.lazy_initialization(position, position)
            self._grow(position, position)
        keys, values = self._buffers
        if self._shared_prefix is None:
            self._shared_prefix = find_shared_prefix(keys[:, :, :length], values[:, :, :length])
        return keys, values, self._shared_prefix, length + 1

    def _grow(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        """Lengthen `keys` and `values` by the positions of these, to be written."""
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if not self._buffers or end > self._buffers[0].shape[-2]:
            if end > self._capacity:
                self._capacity = 2 * end
            self._buffers = [
                new.new_empty((*new.shape[:-2], self._capacity, new.shape[-1]))
                for new in (key_states, value_states)
            ]
            for buffer, filled in zip(self._buffers, (self.keys, self.values), strict=True):
                if length and filled is not None:
                    buffer[..., :length, :] = filled
        return self._set_length(end)

    def _set_length(self, positions: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (buffer.narrow(-2, 0, positions) for buffer in self._buffers)
        return self.keys, self.values


def find_shared_prefix(keys: Tensor, values: Tensor) -> Tensor:
    """Find the prefixes that rows share, in the form that `GrowingLayer.extend` returns."""
    rows, heads, length, _ = keys.shape
    shared = torch.zeros(rows, 1 + heads, dtype=torch.int64)
    for row in range(1, rows):
        for earlier in range(row):
            if shared[row, 1] == length:
                break
            prefix = _equal_prefix(keys[row], keys[earlier], length)
            prefix = _equal_prefix(values[row], values[earlier], prefix)
            if prefix > shared[row, 1]:
                shared[row, 0], shared[row, 1:] = earlier, prefix
    return shared


def _equal_prefix(a: Tensor, b: Tensor, positions: int) -> int:
    """How many of the first positions of [heads, positions, width] are equal."""
    begin, size = 0, 1
    while begin < positions and size:
        end = min(begin + size, positions)
        if torch.equal(a[:, begin:end], b[:, begin:end]):
            begin, size = end, 2 * size
        else:
            size //= 2
    return begin


class TokenLayer:
    """Cache layer that keeps the tokens, int64 [rows, positions], to be reread at every step.

    For models that have no cache of keys and values, or one that prunetui does not know.
    """

    def __init__(self) -> None:
        self.tokens: Tensor | None = None

    def extend(self, tokens: Tensor) -> Tensor:
        """Append tokens and return all."""
        before = [] if self.tokens is None else [self.tokens]
        self.tokens = torch.cat([*before, tokens], dim=1)
        return self.tokens

    def crop(self, positions: int) -> None:
        """Take the last -positions off, as transformers' layers do."""
        if self.tokens is not None:
            self.tokens = self.tokens[:, :positions]


def new_cache(model: PreTrainedModel, reread: bool = False, capacity: int = 0) -> DynamicCache:
    """An empty cache with the layers that the model's config asks for, with memory for `capacity`
    positions where all of them are kept.

    With `reread`, and for a model that takes no cache, it keeps the tokens alone.
    """
    if reread or not takes_cache(model):
        cache = DynamicCache()
        layers: list[Any] = [TokenLayer()]
        cache.layers = layers
        return cache
    cache = DynamicCache(config=model.config)
    cache.layers = [
        GrowingLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def supports_fixed_cache(model: PreTrainedModel) -> bool:
    """Whether all that a model keeps of a text is keys and values of its positions, on one device.

    A layer with a sliding window can keep all positions too: the mask hides those outside of it.
    Families that transformers has for no static cache may take the room for the text: GPT-Neo does.
    """
    return (
        takes_cache(model)
        and model._can_compile_fullgraph  # noqa: SLF001
        and ChangingRope(model).limit is None
        and len({parameter.device for parameter in model.parameters()}) == 1
        and all(
            type(layer) in (DynamicLayer, DynamicSlidingWindowLayer)
            for layer in DynamicCache(config=model.config).layers
        )
    )


def read(
    model: PreTrainedModel,
    tokens: Tensor,
    cache: DynamicCache,
    length: int | Tensor,
    logits_to_keep: int = 1,
) -> Tensor:
    """Read int64 [rows, positions] after the `length` positions in the cache; return the logits of
    the last ones, [rows, logits_to_keep, vocabulary]. A length on the device, int64 [1], takes one
    position."""
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
        return model(**inputs).logits[:, -logits_to_keep:]
    inputs: dict[str, Any] = {_cache_argument(model): cache}
    # Most models count the cache's positions themselves, but some begin at 0 again.
    if "position_ids" in _parameters(type(model)):
        positions = (
            length
            if isinstance(length, Tensor)
            else torch.arange(length, length + tokens.shape[1], device=tokens.device)
        )
        inputs["position_ids"] = positions.expand_as(tokens)
    out = model(input_ids=tokens, **inputs, use_cache=True, logits_to_keep=logits_to_keep)
    return out.logits[:, -logits_to_keep:]


def takes_cache(model: PreTrainedModel) -> bool:
    """Whether the model uses a cache that it is given.

    Others ignore it and read each token as if it were the first.
    """
    kind: Any = type(model)
    return kind._supports_default_dynamic_cache() and _cache_argument(model) in _parameters(kind)


@functools.cache
def _parameters(kind: type[PreTrainedModel]) -> Collection[str]:
    """Names of the arguments of a forward pass."""
    return inspect.signature(kind.forward).parameters.keys()


def _cache_argument(model: PreTrainedModel) -> str:
    """Name of the argument that takes the cache."""
    return "cache_params" if "mamba" in type(model).__name__.lower() else "past_key_values"


def is_recurrent(cache: DynamicCache) -> bool:
    """Whether a layer has states, which some models reset where several tokens are read at once."""
    return any(hasattr(layer, "recurrent_states") for layer in cache.layers)


def can_crop(caches: list[DynamicCache]) -> bool:
    """Whether every layer can go back: a sliding window forgets what a crop past its length would
    need, a recurrent state everything."""
    return all(_croppable(layer) for cache in caches for layer in cache.layers)


def crop(caches: list[DynamicCache], positions: int) -> bool:
    """Take the last positions off; False, with nothing done, if a layer cannot go back."""
    if not can_crop(caches):
        return False
    for cache in caches:
        layers: list[Any] = cache.layers
        for layer in layers:
            layer.crop(-positions)
    return True


def snapshot(caches: list[DynamicCache]) -> Callable[[], None]:
    """Return a function that restores the caches after a crop and a re-read.

    What is read in between must be what was read before: keys and values are written in place.
    """
    layers: list[Any] = [layer for cache in caches for layer in cache.layers]
    states = [dict(vars(layer)) for layer in layers]
    for state in states:
        # A step writes into it.
        if state.get("_shared_prefix") is not None:
            state["_shared_prefix"] = state["_shared_prefix"].clone()

    def restore() -> None:
        for layer, state in zip(layers, states, strict=True):
            vars(layer).update(state)

    return restore


def cache_bytes(cache: DynamicCache) -> int:
    """Bytes of keys and values that a forward pass reads."""
    tensors = [getattr(layer, name, None) for layer in cache.layers for name in ("keys", "values")]
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))


def _croppable(layer: object) -> bool:
    # Subclasses of these keep more.
    if type(layer) is DynamicSlidingWindowLayer:
        return layer.get_seq_length() < layer.sliding_window
    return type(layer) in (GrowingLayer, FixedLayer, TokenLayer)
