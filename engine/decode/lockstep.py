"""The lockstep decoder: all lanes advance by one token per step."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from transformers import DynamicCache

from ..cpu.backend import backend_for
from ..errors import UserError
from ..model.dropped import Dropped
from ..model.gates import Gates
from ..model.residual_stream import HeadHook, StreamHooks
from ..model.rope import ChangingRope
from ..model.weight_group import WeightGroup
from .bandwidth import cache_bytes
from .kv_cache import (
    TokenLayer,
    can_crop,
    crop,
    is_recurrent,
    new_cache,
    new_static_cache,
    read,
    remember,
)
from .llama_step import LlamaStep, is_of_llamas_kind
from .outputs import Outputs

PREFILL_CHUNK = 512
"""Positions per forward pass: what a long prompt needs in activations does not grow with it."""

STATIC_ROOM = 256
"""A compiled step has a multiple of so many positions, so that most prompts share a shape."""


class Lockstep:
    """Feeds tokens to all lanes at once: lanes of one weight group in one forward pass.

    A lane's numbers depend on the batch shape, in bfloat16 enough to flip a token; so the number
    of rows never changes. A lane that has ended keeps its row, and rewinding crops the caches
    rather than reading again.
    """

    def __init__(
        self,
        lanes: list[tuple[WeightGroup, Dropped]],
        compiled: bool = False,
        reread: Collection[WeightGroup] = (),
    ) -> None:
        """Models in `reread` read all tokens again at every step, without a cache.

        Raises `UserError` if a step shall be compiled of a model that keeps more than keys and
        values."""
        self._compiled = compiled
        self.reread = reread
        self.length = 0
        """Positions in the caches."""
        by_group: dict[WeightGroup, list[int]] = {}
        for number, (group, _) in enumerate(lanes):
            by_group.setdefault(group, []).append(number)
        # Where tokens are chosen: what picks rows lies there too, or each step would move it.
        self._device = lanes[0][0].model.device
        self._batches: list[_Batch] = []
        try:
            for group, rows in by_group.items():
                gates = [lanes[row][1] for row in rows]
                places = torch.tensor(rows, device=self._device)
                self._batches.append(_Batch(group, places, gates, compiled, group in reread))
        except BaseException:
            self.close()
            raise
        # Where each lane's row is, once the batches' rows are put one behind the other.
        self._order = torch.cat([batch.rows for batch in self._batches]).argsort()

    @property
    def rows(self) -> int:
        """One per lane."""
        return len(self._order)

    @property
    def reads_in_parts(self) -> bool:
        """However the tokens of a text are parted, reading them part by part leaves the same in the
        caches, but for rounding."""
        return all(batch.reads_in_parts for batch in self._batches)

    @property
    def rereading(self) -> list[WeightGroup]:
        """Models that read all tokens again at every step: those in `reread`, and those whose
        caches are not known."""
        return [
            batch.group for batch in self._batches if isinstance(batch.cache.layers[0], TokenLayer)
        ]

    def close(self) -> None:
        """Leave the models as they were; `reopen` goes on where the caches are."""
        for batch in self._batches:
            batch.close()
        if self._compiled:
            # Compiled for the hooks that are gone now.
            torch.compiler.reset()

    def reopen(self) -> None:
        for batch in self._batches:
            batch.open()

    @property
    def cache_read(self) -> int:
        """Bytes of keys and values that a step has read, if the last tokens were one."""
        return sum(batch.cache_read for batch in self._batches)

    def prefill(self, tokens: Tensor, room: int = 0) -> Outputs:
        """Empty the caches and read int64 [lanes, positions]; gives the last position's outputs.

        A compiled step can read `room` positions more. Raises `UserError` if it should be compiled
        and cannot be.
        """
        tokens = tokens.to(self._device)
        self.length = 0
        if self._compiled:
            self._compile(tokens, room)
        else:
            for batch in self._batches:
                batch.clear()
        at_once = PREFILL_CHUNK if self.reads_in_parts else tokens.shape[1]
        *chunks, last = tokens.split(at_once, dim=1)
        for chunk in chunks:
            self.advance(chunk)
        return self.advance(last)

    @torch.inference_mode()
    def _compile(self, tokens: Tensor, room: int) -> None:
        """Have empty caches with room for all that, and a step that reads and writes them."""
        positions = -(-(tokens.shape[1] + room) // STATIC_ROOM) * STATIC_ROOM
        # All batches have as many positions; a compiled step is bound to the tensors of its cache.
        if all(batch.has_room(positions) for batch in self._batches):
            for batch in self._batches:
                batch.cache.reset()
            return
        # Programs for shorter caches would count against the compiler's limit.
        torch.compiler.reset()
        for batch in self._batches:
            batch.compile(positions, tokens)

    @torch.inference_mode()
    def advance(self, tokens: Tensor) -> Outputs:
        """Read int64 [lanes, positions] behind what the caches hold."""
        tokens = tokens.to(self._device)
        outputs = [batch.advance(tokens[batch.rows], self.length) for batch in self._batches]
        self.length += tokens.shape[1]
        first = outputs[0]
        if len(outputs) == 1:
            return first
        points = len(first.streams)
        streams = [
            out.streams
            if len(out.streams) == points
            else out.streams.new_zeros(()).expand(points, *out.streams.shape[1:])
            for out in outputs
        ]
        return Outputs(
            h=torch.cat([out.h.to(self._device) for out in outputs])[self._order],
            z=torch.cat([out.z.to(self._device) for out in outputs])[self._order],
            streams=torch.cat([s.to(self._device) for s in streams], dim=1)[:, self._order],
        )

    @torch.inference_mode()
    def crop(self, positions: int) -> bool:
        """Cut the caches to so many positions; False, and nothing done, if they cannot be cut."""
        surplus = self.length - positions
        if surplus == 0:
            return True
        if any(batch.rope.crosses(positions, self.length) for batch in self._batches):
            return False
        if not crop([batch.cache for batch in self._batches], surplus):
            return False
        self.length = positions
        return True

    def look_back(self, positions: int, tokens: Tensor) -> Outputs | None:
        """Read int64 [lanes, 1] behind the first `positions` only, and leave the caches as they
        are; None, and nothing done, if they cannot be cut."""
        caches = [batch.cache for batch in self._batches]
        # One that cannot go back could not forget these tokens either.
        if not can_crop(caches) or any(
            batch.rope.crosses(positions, self.length) for batch in self._batches
        ):
            return None
        put_back, length = remember(caches), self.length
        were_read = [batch.tokens for batch in self._batches]
        try:
            self.crop(positions)
            return self.advance(tokens)
        finally:
            put_back()
            self.length = length
            for batch, tokens in zip(self._batches, were_read, strict=True):
                batch.tokens = tokens


class _Batch:
    """The lanes of one weight group: rows of one batch over one copy of the weights."""

    def __init__(
        self,
        group: WeightGroup,
        rows: Tensor,
        gates: list[Dropped],
        compiled: bool,
        reread: bool,
    ) -> None:
        self.rows = rows
        self.group = group
        self.model = model = group.model
        self._reread = reread
        self.cache = new_static_cache(model, 0) if compiled else new_cache(model, reread)
        self._compiled: Callable[..., tuple[Tensor, Tensor, Tensor]] | None = None
        if compiled:
            self._compiled = torch.compile(self._forward, dynamic=False, fullgraph=True)
        self.rope = ChangingRope(model)
        self.reads_in_parts = self.rope.limit is None and not is_recurrent(self.cache)
        self.tokens = rows.new_empty(len(rows), 0).to(model.device)
        """All that the cache holds, where they may have to be read again."""
        self._anatomy = group.anatomy
        layers = group.anatomy.layers
        self._closed: dict[nn.Module, Tensor] = {}
        for number, layer in enumerate(layers):
            attention = torch.tensor([number in lane.attention for lane in gates])
            self._closed |= dict.fromkeys(layer.attention, attention)
            mlp = torch.tensor([number in lane.mlp for lane in gates])
            self._closed |= dict.fromkeys(layer.mlp, mlp)
        self._llama = None
        self._points: list[Tensor] = []
        """The stream's, while the model runs: [rows, hidden] each."""
        self._h = torch.empty(0)
        self._hooks = (
            Gates(self._closed),
            StreamHooks(self._anatomy, self._keep_point),
            HeadHook(self._anatomy, self._keep_h),
        )
        self.open()

    def open(self) -> None:
        if is_of_llamas_kind(self.model, self.cache):
            backend = backend_for(self.model.device, self.model.dtype)
            compiled_step = backend.step(self.model, self._closed) if backend else None
            self._llama = compiled_step or LlamaStep(self.model, self._closed)
        try:
            for hook in self._hooks:
                hook.install()
        except BaseException:
            self.close()
            raise

    def clear(self) -> None:
        """Start again with an empty cache."""
        self.cache = new_cache(self.model, self._reread)

    def close(self) -> None:
        self._llama = None
        for hook in self._hooks:
            hook.remove()

    @property
    def cache_read(self) -> int:
        if self._llama is None or isinstance(self._llama, LlamaStep):
            return cache_bytes(self.cache)
        return self._llama.cache_read

    def has_room(self, positions: int) -> bool:
        return self.cache.is_initialized and self.cache.get_max_length() >= positions

    def compile(self, positions: int, tokens: Tensor) -> None:
        """Have an empty cache of `positions` and a step for it; `tokens` are any to try."""
        self.cache = new_static_cache(self.model, positions)
        first = tokens[self.rows, :1]
        self.advance(first, 0)
        try:
            self.advance(first, 1)
        except TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"a step of this model cannot be compiled ({reason}); leave --compile out"
            ) from error
        self.cache.reset()

    def advance(self, tokens: Tensor, before: int) -> Outputs:
        """Read int64 [rows, positions] behind `before` positions."""
        tokens = tokens.to(self.model.device)
        if self.rope.limit is not None:
            self.rope.forget()
            self.tokens = torch.cat([self.tokens[:, :before], tokens], dim=1)
            if before and self.rope.crosses(before, before + tokens.shape[1]):
                self.clear()
                tokens, before = self.tokens, 0
        # The first pass makes the cache's tensors, which is not for a compiler to trace.
        if self._compiled and tokens.shape[1] == 1 and self.cache.is_initialized:
            return Outputs(*self._compiled(tokens, self.cache))
        if self._llama and tokens.shape[1] == 1:
            return Outputs(*self._llama(tokens, self.cache))
        return Outputs(*self._forward(tokens, self.cache, before))

    def _forward(
        self, tokens: Tensor, cache: DynamicCache, before: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """h, z and the streams of the last position."""
        self._points = []
        z = read(self.model, tokens, cache, before)
        if self._points:
            # Of a model spread over several devices, each may lie on another.
            streams = torch.stack([point.to(z.device) for point in self._points])
        else:
            streams = z.new_full((2 * len(self._anatomy.layers) + 1, len(z), 1), torch.nan)
        h, self._h, self._points = self._h.to(z.device), torch.empty(0), []
        return h, z, streams

    def _keep_point(self, _number: int, stream: Tensor) -> None:
        # A view, but of one position: it would keep a long prompt's activations.
        self._points.append(stream[:, -1] if stream.shape[1] == 1 else stream[:, -1].clone())

    def _keep_h(self, h: Tensor) -> None:
        self._h = h[:, -1]
