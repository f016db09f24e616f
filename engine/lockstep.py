"""The lockstep decoder: every lane is a row of one batch over one copy of the weights."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from .anatomy import Anatomy
from .gates import Gates
from .packing import PackedLinears
from .streams import StreamHooks

PREFILL_CHUNK = 512
"""Positions per forward pass: what a long prompt needs in activations does not grow with it."""


@dataclass(frozen=True)
class Outputs:
    """Of one position in every lane, in the model's dtype and overwritten by the next forward."""

    h: Tensor
    """[lanes, hidden]: the head's input."""
    z: Tensor
    """[lanes, vocabulary]: what the model's own head returns."""
    streams: Tensor
    """[2 layers, lanes, hidden]: the residual stream after attention 0, MLP 0, attention 1, …"""


@dataclass(frozen=True)
class LaneGates:
    """The layers whose attention and MLP one lane drops; none in the baseline."""

    attention: frozenset[int] = frozenset()
    mlp: frozenset[int] = frozenset()


class Lockstep:
    """Feeds tokens to all lanes at once. The number of rows never changes.

    A lane's numbers depend on the batch shape, in bfloat16 enough to flip a token; so a lane that
    has ended keeps its row, and rewinding crops the caches rather than reading again.
    """

    def __init__(self, model: PreTrainedModel, anatomy: Anatomy, lanes: list[LaneGates]) -> None:
        self.lanes = lanes
        self._model = model
        self._cache = self._new_cache()
        layers = anatomy.layers
        closed: dict[nn.Module, Tensor] = {}
        for number, layer in enumerate(layers):
            closed[layer.attention] = torch.tensor([number in lane.attention for lane in lanes])
            closed[layer.mlp] = torch.tensor([number in lane.mlp for lane in lanes])
        config = model.config.get_text_config()
        self._streams = torch.empty(
            2 * len(layers), len(lanes), config.hidden_size, dtype=model.dtype, device=model.device
        )
        self._h = torch.empty(0)
        self._hooks = [
            PackedLinears(model, len(lanes)),
            Gates(closed),
            StreamHooks(anatomy, self._keep_stream),
            anatomy.head.register_forward_pre_hook(self._keep_h),
        ]

    def close(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()

    @property
    def length(self) -> int:
        """Positions in the caches."""
        return self._cache.get_seq_length()

    def prefill(self, tokens: Tensor) -> Outputs:
        """Empty the caches and read int64 [lanes, positions]; gives the last position's outputs."""
        self._cache = self._new_cache()
        *chunks, last = tokens.split(PREFILL_CHUNK, dim=1)
        for chunk in chunks:
            self.advance(chunk)
        return self.advance(last)

    @torch.inference_mode()
    def advance(self, tokens: Tensor) -> Outputs:
        """Read int64 [lanes, positions] behind what the caches hold."""
        out = self._model(
            input_ids=tokens.to(self._model.device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return Outputs(self._h, out.logits[:, -1], self._streams)

    def crop(self, length: int) -> bool:
        """Cut the caches to `length` positions; False, and nothing done, if they cannot be cut."""
        surplus = self.length - length
        if surplus == 0:
            return True
        if not all(_croppable(layer) for layer in self._cache.layers):
            return False
        self._cache.crop(-surplus)
        return True

    def _new_cache(self) -> DynamicCache:
        return DynamicCache(config=self._model.config)

    def _keep_stream(self, point: int, stream: Tensor) -> None:
        layer, place = divmod(point, 3)
        if place:
            self._streams[2 * layer + place - 1].copy_(stream[:, -1])

    def _keep_h(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        self._h = args[0][:, -1]


def _croppable(layer: object) -> bool:
    """A sliding window forgets what a crop past its length would need, a recurrent state all."""
    if isinstance(layer, DynamicSlidingWindowLayer):
        return layer.get_seq_length() < layer.sliding_window
    return type(layer) is DynamicLayer
