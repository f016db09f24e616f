"""Keys and values of a text, over which the token after it is read in rows."""

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicSlidingWindowLayer

from ..decode.kv_cache import GrowingLayer, new_cache, read
from ..decode.layer_hooks import LayerHooks
from ..decode.lockstep import PREFILL_CHUNK
from ..errors import UserError
from ..foreign import foreign_code
from ..model.dropped import Dropped
from ..model.gates import Gates
from ..model.installed import InstalledHooks
from ..model.weight_group import WeightGroup

MOST_BYTES = 256 << 20
"""Most bytes of a layer's keys and values, in all rows, that a reading makes."""
COPIES = 8
"""Copies of a row's keys and values of a layer that patching and attention make at most."""


class CachedText:
    """The caches of a text in one model, which reading the next token leaves as they are."""

    def __init__(
        self,
        group: WeightGroup,
        dropped: Dropped,
        text: Sequence[int],
        report: Callable[[float], None],
        hooks: Sequence[InstalledHooks] = (),
    ) -> None:
        """Read the text, which may be empty, without the dropped sublayers, and with the hooks.

        `report` gets the fraction that is read, after every layer. Raises `UserError` for a family
        that keeps anything else of a text than keys and values of its positions.
        """
        self._group = group
        self._gates = Gates(dict.fromkeys(group.anatomy.sublayers(dropped), torch.tensor([True])))
        self.length = 0
        """Positions in the caches."""
        self.cache = new_cache(group.model, capacity=len(text))
        """Keys and values of the text."""
        kinds = (GrowingLayer, DynamicSlidingWindowLayer)
        if not all(type(layer) in kinds for layer in self.cache.layers):
            raise UserError(
                f"a {self._family} model keeps more of a text than keys and values, which cannot "
                "be put together from two models; only the parts of the lane can be blamed"
            )
        self._fill(text, report, hooks)

    @property
    def _family(self) -> str:
        return self._group.model.config.model_type

    @torch.inference_mode()
    def _fill(
        self,
        text: Sequence[int],
        report: Callable[[float], None],
        hooks: Sequence[InstalledHooks],
    ) -> None:
        chunks = self._tokens(text)[None].split(PREFILL_CHUNK, dim=1) if text else ()
        reporting = LayerHooks([self._group.anatomy], len(chunks), report)
        with self._installed([*hooks, reporting]):
            for chunk in chunks:
                read(self._group.model, chunk, self.cache, self.length)
                self.length += chunk.shape[1]

    def rows_at_once(self, rows: int) -> int:
        """How many of so many rows to read at once."""
        layers: list[Any] = self.cache.layers
        sizes = [
            layer.keys.nbytes + layer.values.nbytes for layer in layers if layer.is_initialized
        ]
        return max(1, min(rows, MOST_BYTES // (COPIES * max(sizes, default=1))))

    @torch.inference_mode()
    def read(
        self,
        token: int,
        rows: int = 1,
        *,
        others: "CachedText | None" = None,
        first: Sequence[int] = (),
        hooks: Sequence[InstalledHooks] = (),
    ) -> Tensor:
        """Read a token after the text in so many rows; return logits [rows, vocabulary].

        With the caches of the same text in another model, each row reads over those from its
        position in `first` on, and over its own before. `hooks` are installed after the gates.
        """
        cache, model = copy.copy(self.cache), self._group.model
        pairs = zip(self.cache.layers, (others or self).cache.layers, strict=True)
        positions = torch.tensor(first) if others else None
        layers: list[Any] = [_over(layer, other, positions, self.length) for layer, other in pairs]
        cache.layers = layers
        tokens = self._tokens([token]).expand(rows, 1)
        with self._installed(hooks):
            return read(model, tokens, cache, self.length)[:, -1]

    def _tokens(self, tokens: Sequence[int]) -> Tensor:
        return torch.tensor(tokens, device=self._group.model.device)

    @contextmanager
    def _installed(self, hooks: Sequence[InstalledHooks]) -> Iterator[None]:
        with ExitStack() as installed:
            installed.enter_context(
                foreign_code(f"this {self._family} model cannot read a text in rows")
            )
            for hook in (self._gates, *hooks):
                installed.enter_context(hook)
            yield


def _over(layer: Any, other: Any, first: Tensor | None, length: int) -> Any:
    """A cache layer that returns what it holds with what it is given, and keeps nothing of it.

    Each row holds what `layer` does, from its position in `first`, int64 [rows], on what `other`
    does; without it all rows hold the same.
    """
    reading = copy.copy(layer)
    if layer.is_initialized:
        reading.update = functools.partial(_join, layer, other, first, length)
    return reading


def _join(
    layer: Any,
    other: Any,
    first: Tensor | None,
    length: int,
    keys: Tensor,
    values: Tensor,
    *_args: Any,
    **_kwargs: Any,
) -> tuple[Tensor, Tensor]:
    joined = []
    for own, others, new in (
        (layer.keys, other.keys, keys),
        (layer.values, other.values, values),
    ):
        if first is None:
            before = own.expand(len(new), -1, -1, -1)
        else:
            # A sliding window holds the last positions alone.
            positions = torch.arange(length - own.shape[-2], length)
            patched = (positions >= first[:, None])[:, None, :, None].to(own.device)
            before = torch.where(patched, others.to(own.device), own)
        joined.append(torch.cat([before, new], dim=-2))
    return joined[0], joined[1]
