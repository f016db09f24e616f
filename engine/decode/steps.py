"""The ways to read tokens with one batch, behind one protocol."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from ..cpu.backend import backend_for
from ..model.gates import Gates
from ..model.outputs import Outputs
from ..model.residual_stream import HeadHook, StreamHooks
from ..model.weight_group import WeightGroup
from .kv_cache import cache_bytes, read
from .llama_step import LlamaStep, supports_llama_step

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

    def __call__(self, tokens: Tensor, cache: DynamicCache, length: int) -> Outputs:
        """Read int64 [rows, positions]; return the outputs of the last position."""
        self._points = []
        z = read(self._group.model, tokens, cache, length)
        if self._points:
            # A model spread over several devices has points on several.
            streams = torch.stack([point.to(z.device) for point in self._points])
        else:
            points = 2 * len(self._group.anatomy.layers) + 1
            streams = z.new_full((points, len(z), 1), torch.nan)
        h, self._h, self._points = self._h.to(z.device), torch.empty(0), []
        return Outputs(h, z, streams)

    def cache_bytes(self, cache: DynamicCache) -> int:
        return cache_bytes(cache)

    def _keep_point(self, _number: int, stream: Tensor) -> None:
        # A view is kept of one position only: it would keep a long prompt's activations alive.
        self._points.append(stream[:, -1] if stream.shape[1] == 1 else stream[:, -1].clone())

    def _keep_h(self, h: Tensor) -> None:
        self._h = h[:, -1]


def choose_step(
    group: WeightGroup, closed: ClosedRows, cache: DynamicCache, forward_pass: ForwardPass
) -> Step:
    """The fastest step that can run a model as it is prepared now."""
    model = group.model
    if not supports_llama_step(model, cache):
        return forward_pass
    backend = backend_for(model.device, model.dtype)
    return (backend and backend.step(model, closed)) or LlamaStep(model, closed)
