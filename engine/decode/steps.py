"""The ways to read tokens with one batch, behind one protocol."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from ..cpu.backend import backend_for
from ..model.gates import Gates
from ..model.outputs import Outputs
from ..model.residual_stream import HeadHook, StreamHooks
from ..model.weight_group import WeightGroup
from .fixed_cache import fixed_cache_bytes
from .kv_cache import cache_bytes, read
from .llama_step import LlamaStep, supports_llama_step
from .static_llama import StaticLlamaStep, supports_static_llama

ClosedRows = Mapping[nn.Module, Tensor]
"""For each attention and MLP, bool [rows]: the rows whose gate is closed."""


class Step(Protocol):
    """One way to read the next position in every row of a batch."""

    def __call__(self, tokens: Tensor, cache: DynamicCache, length: int) -> Outputs:
        """Read int64 [rows, 1] after the `length` positions that the cache holds."""
        ...

    def cache_bytes(self, cache: DynamicCache) -> int:
        """Bytes of keys and values that the last call has read."""
        ...


class StaticStep(Protocol):
    """One way to read one position in every row, where a tensor on the device says."""

    def __call__(self, tokens: Tensor) -> Outputs:
        """Read int64 [rows, 1] at the position."""
        ...

    def cache_bytes(self, cache: DynamicCache) -> int:
        """Bytes of keys and values that the last call has read."""
        ...


class ForwardPass:
    """The model's own forward pass of any number of positions, with gates and recording hooks.

    Gates and hooks are on the model between `install` and `remove`.
    """

    def __init__(self, group: WeightGroup, closed: ClosedRows) -> None:
        self._group = group
        # The stream is recorded as the gates leave it.
        self._hooks = (
            Gates(dict(closed)),
            StreamHooks(group.anatomy, self._keep_point),
            HeadHook(group.anatomy, self._keep_h),
        )
        self._points: list[Tensor] = []
        """Points of the residual stream, [rows, hidden] each, while the model runs."""
        self._h = torch.empty(0)

    def install(self) -> None:
        try:
            for hook in self._hooks:
                hook.install()
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def __call__(self, tokens: Tensor, cache: DynamicCache, length: int | Tensor) -> Outputs:
        """Read int64 [rows, positions]; return the outputs of the last position.

        A length on the device, int64 [1], takes one position.
        """
        self._points = []
        z = read(self._group.model, tokens, cache, length)[:, -1]
        if self._points:
            # A model spread over several devices has points on several.
            streams = torch.stack([point.to(z.device) for point in self._points])
        else:
            points = 2 * len(self._group.anatomy.layers) + 1
            streams = z.new_full((points, len(z), 1), torch.nan)
        h, self._h, self._points = self._h.to(z.device), torch.empty(0), []
        return Outputs(h, z, streams)

    def logits(self, tokens: Tensor, cache: DynamicCache, length: int) -> Tensor:
        """Read int64 [rows, positions]; return the logits of every position, [rows, positions,
        vocabulary]."""
        z = read(self._group.model, tokens, cache, length, logits_to_keep=tokens.shape[1])
        self._h, self._points = torch.empty(0), []
        return z

    def cache_bytes(self, cache: DynamicCache) -> int:
        return cache_bytes(cache)

    def _keep_point(self, _number: int, stream: Tensor) -> None:
        # A view is kept of one position only: it would keep a long prompt's activations alive.
        self._points.append(stream[:, -1] if stream.shape[1] == 1 else stream[:, -1].clone())

    def _keep_h(self, h: Tensor) -> None:
        self._h = h[:, -1]


class StaticForwardPass:
    """A forward pass of one position over a cache of fixed room."""

    def __init__(self, forward_pass: ForwardPass, cache: DynamicCache, position: Tensor) -> None:
        self._forward_pass, self._cache, self._position = forward_pass, cache, position

    def __call__(self, tokens: Tensor) -> Outputs:
        """Read int64 [rows, 1] at the position."""
        layers: list[Any] = self._cache.layers
        for layer in layers:
            layer.stepping = True
        try:
            return self._forward_pass(tokens, self._cache, self._position)
        finally:
            for layer in layers:
                layer.stepping = False

    def cache_bytes(self, cache: DynamicCache) -> int:
        return fixed_cache_bytes(cache, whole_room=True)


def choose_static_step(
    group: WeightGroup,
    closed: ClosedRows,
    cache: DynamicCache,
    forward_pass: ForwardPass,
    position: Tensor,
) -> StaticStep:
    """The fastest step over a cache of fixed room, which has a text."""
    if supports_static_llama(group.model):
        return StaticLlamaStep(group.model, closed, cache, position)
    return StaticForwardPass(forward_pass, cache, position)


def choose_step(
    group: WeightGroup, closed: ClosedRows, cache: DynamicCache, forward_pass: ForwardPass
) -> Step:
    """The fastest step that can run a model as it is prepared now."""
    model = group.model
    if not supports_llama_step(model, cache):
        return forward_pass
    backend = backend_for(model.device, model.dtype)
    return (backend and backend.step(model, closed)) or LlamaStep(model, closed)
