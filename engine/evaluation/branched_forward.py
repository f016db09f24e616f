"""One pass over the layers of a Llama-like model for lanes that drop different sublayers.

Lanes share a residual stream as long as they have dropped the same sublayers. A sublayer that all
lanes of a stream drop is not computed; one that some of them drop splits the stream.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.models.mistral.modeling_mistral import MistralAttention

from ..decode.llama_step import SUPPORTED
from ..model.attention import STOCK_ATTENTION
from ..model.dropped import Dropped, Sublayer
from ..model.rope import ChangingRope
from ..model.weight_group import WeightGroup
from .lane_forward import StreamOutputs
from .requests import Tokens
from .text_batches import Batch, prefix_batch

Lanes = tuple[int, ...]
"""Numbers of the lanes of a stream."""
KeysAndValues = tuple[Tensor, Tensor]
"""Keys and values [rows, key heads, positions, width] of an attention."""
PrefixKeys = dict[tuple[int, Lanes], KeysAndValues]
"""Keys and values of a prefix, one row, by layer and by the lanes that attend there."""


def supports_branched_forward(group: WeightGroup) -> bool:
    """Whether `BranchedForward` can run this model: supported class, stock attention, one device,
    rotary angles that do not depend on the length of the text."""
    model = group.model
    return (
        type(model) in SUPPORTED
        and model.config._attn_implementation == STOCK_ATTENTION
        and len({parameter.device for parameter in model.parameters()}) == 1
        and ChangingRope(model).limit is None
    )


class BranchedForward:
    """Forward passes of lanes over one model, which call its layers' own modules."""

    def __init__(self, group: WeightGroup, lanes: Mapping[int, Dropped]) -> None:
        """`lanes` are the dropped sublayers by the number of the lane."""
        self._model: Any = group.model
        self._lanes = lanes
        depth = len(self._model.model.layers)
        self._last_attention = {
            lane: max({*range(depth)} - dropped.attention, default=-1)
            for lane, dropped in lanes.items()
        }
        """The last layer whose attention a lane computes, -1 if there is none."""

    def read_prefix(self, tokens: Tokens) -> PrefixKeys:
        """Keys and values of every stream, of tokens that all texts begin with."""
        keys: PrefixKeys = {}
        if tokens:
            self._run(prefix_batch(tokens), lambda *key: _RecordedKeys(keys, key))
        return keys

    def read(self, batch: Batch, prefix: PrefixKeys, /) -> Iterator[StreamOutputs]:
        def cache(layer: int, lanes: Lanes) -> "_KeysAfter | None":
            return _KeysAfter(*prefix[layer, lanes]) if batch.prefix else None

        for stream in self._run(batch, cache):
            h = self._model.model.norm(stream.x[0])
            yield StreamOutputs(stream.lanes, h, partial(self._logits, h))

    def _logits(self, h: Tensor, start: int, stop: int) -> Tensor:
        return self._model.lm_head(h[start:stop])

    def _run(self, batch: Batch, cache: Callable[[int, Lanes], Any]) -> list["_Stream"]:
        """The streams after the last layer, at the needed positions [1, needed, hidden].

        `cache` gives what an attention calls with its keys and values, by layer and lanes.
        """
        device, llama = self._model.device, self._model.model
        x = llama.embed_tokens(batch.tokens.to(device))
        # Where rows have no tails, all have the same positions.
        positions = batch.positions if batch.tails is not None else batch.positions[:1]
        angles = llama.rotary_emb(x, position_ids=positions.to(device))
        needed = batch.rows.to(device), batch.columns.to(device)
        masks: dict[int | None, Tensor | None] = {}
        streams = [_Stream((*self._lanes,), x, whole=True)]
        del x
        for number, layer in enumerate(llama.layers):
            window = _window(layer.self_attn)
            if window not in masks:
                masks[window] = attention_mask(batch, window, device)
            attend = partial(_attend, layer, angles, masks[window], partial(cache, number))
            streams = self._add(streams, number, "attention", attend)
            streams = [self._narrow(stream, number, needed) for stream in streams]
            streams = self._add(streams, number, "mlp", partial(_feed_forward, layer))
        return streams

    def _add(
        self,
        streams: list["_Stream"],
        layer: int,
        sublayer: Sublayer,
        compute: Callable[[Tensor, Lanes], Tensor],
    ) -> list["_Stream"]:
        """The streams after a sublayer, split where some of their lanes drop it."""
        after = []
        for stream in streams:
            dropping = tuple(x for x in stream.lanes if layer in self._lanes[x].of(sublayer))
            adding = tuple(x for x in stream.lanes if x not in dropping)
            if adding:
                x = stream.x + compute(stream.x, adding)
                after.append(_Stream(adding, x, stream.whole))
            if dropping:
                after.append(_Stream(dropping, stream.x, stream.whole))
        return after

    def _narrow(self, stream: "_Stream", layer: int, needed: tuple[Tensor, Tensor]) -> "_Stream":
        """The stream at the needed positions alone, if no later attention reads the others."""
        last = max(self._last_attention[lane] for lane in stream.lanes)
        if not stream.whole or layer < last:
            return stream
        return _Stream(stream.lanes, stream.x[needed][None], whole=False)


def _attend(
    layer: Any,
    angles: tuple[Tensor, Tensor],
    mask: Tensor | None,
    cache: Callable[[Lanes], Any],
    x: Tensor,
    lanes: Lanes,
) -> Tensor:
    """What a layer's attention adds to the stream x."""
    return layer.self_attn(
        layer.input_layernorm(x),
        position_embeddings=angles,
        attention_mask=mask,
        past_key_values=cache(lanes),
    )[0]


def _feed_forward(layer: Any, x: Tensor, _lanes: Lanes) -> Tensor:
    """What a layer's MLP adds to the stream x."""
    return layer.mlp(layer.post_attention_layernorm(x))


@dataclass(frozen=True)
class _Stream:
    """Residual stream of lanes that have dropped the same sublayers so far."""

    lanes: Lanes
    x: Tensor
    """[rows, positions, hidden]; of needed positions alone [1, needed, hidden]."""
    whole: bool
    """Whether all positions are there."""


class _RecordedKeys:
    """The cache of one attention that reads a prefix: it records what is read."""

    def __init__(self, keys: PrefixKeys, key: tuple[int, Lanes]) -> None:
        self._keys, self._key = keys, key

    def update(self, keys: Tensor, values: Tensor, _layer: int) -> KeysAndValues:
        self._keys[self._key] = keys, values
        return keys, values


class _KeysAfter:
    """The cache of one attention in which every row comes after the same prefix."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self._before = keys, values

    def update(self, keys: Tensor, values: Tensor, _layer: int) -> KeysAndValues:
        keys, values = (
            torch.cat((before.expand(len(own), -1, -1, -1), own), dim=2)
            for before, own in zip(self._before, (keys, values), strict=True)
        )
        return keys, values


def _window(attention: Any) -> int | None:
    """Positions that a position attends to at most, its own included; None for all."""
    if isinstance(attention, MistralAttention):
        return attention.config.sliding_window
    return getattr(attention, "sliding_window", None)


def attention_mask(batch: Batch, window: int | None, device: torch.device) -> Tensor | None:
    """Which keys a query attends to: bool [rows or 1, 1, columns, prefix + columns]; None where
    that is all columns up to its own.

    A position attends to the prefix, to the stem before it and to its own tail before it.
    """
    width, prefix, tails = batch.tokens.shape[1], batch.prefix, batch.tails
    if not prefix and tails is None and (window is None or window >= width):
        return None
    columns = torch.arange(width, device=device)
    positions = (batch.positions if tails is not None else batch.positions[:1]).to(device)
    allowed = (columns <= columns[:, None])[None]
    if tails is not None:
        tails = tails.to(device)
        keys = tails[:, None]
        allowed = allowed & ((keys == 0) | (keys == tails[..., None]))
    allowed = torch.nn.functional.pad(allowed, (prefix, 0), value=True)
    if window is not None:
        before = torch.arange(prefix, device=device).expand(len(positions), -1)
        keys = torch.cat((before, positions), dim=1)
        allowed = allowed & (positions[..., None] - keys[:, None] < window)
    return allowed[:, None]
