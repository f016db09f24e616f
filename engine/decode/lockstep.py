"""The lockstep decoder: all lanes advance by one token per step."""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from ..model.dropped import Dropped
from ..model.outputs import Outputs
from ..model.weight_group import WeightGroup
from .batch import Batch
from .fixed_cache import clear_position, finite_after, room_for, room_of, set_length
from .kv_cache import can_crop, crop, snapshot
from .layer_hooks import LayerHooks
from .static_steps import Reduction, StaticSteps

PREFILL_CHUNK = 512
"""Positions per forward pass; bounds the activations that a long prompt needs."""


class Lockstep:
    """Feeds tokens to all lanes at once, lanes of one weight group in one forward pass.

    A lane's numbers depend on the batch shape, in bfloat16 enough to flip a token; so the number
    of rows never changes. A lane that has ended keeps its row, and rewinding crops the caches
    rather than reading again.

    Gates and hooks are on the models between `install` and `remove`; the caches stay.
    """

    def __init__(
        self,
        lanes: Sequence[tuple[WeightGroup, Dropped]],
        *,
        reread: Collection[WeightGroup] = (),
        static: bool = False,
        graphs: bool = False,
    ) -> None:
        """Models in `reread` read all tokens again at every step, without a cache. `static` steps
        run over caches of fixed room, which all models must support, with `graphs` as one CUDA
        graph."""
        self.reread = reread
        self.length = 0
        """Positions in the caches."""
        self.prefill_count = 0
        """Number of times that the caches were emptied."""
        rows_by_group: dict[WeightGroup, list[int]] = {}
        for lane, (group, _) in enumerate(lanes):
            rows_by_group.setdefault(group, []).append(lane)
        # Tokens are chosen on this device; indices of rows lie there too, or each step would move
        # them.
        self._device = lanes[0][0].model.device
        self.static = static
        """Whether a step's tensors stay where they are."""
        self.refusal: str | None = None
        """Why the last static step could not be captured as a CUDA graph."""
        self._graphs = graphs
        self._position = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._static_steps: StaticSteps | None = None
        self._vocabulary = 0
        self._batches = [
            Batch(
                group,
                torch.tensor(rows, device=self._device),
                [lanes[row][1] for row in rows],
                position=self._position if static else None,
                reread=group in reread,
            )
            for group, rows in rows_by_group.items()
        ]
        self._order = torch.cat([batch.lanes for batch in self._batches]).argsort()
        """int64 [lanes]: each lane's row in the concatenation of the batches."""

    def install(self) -> None:
        try:
            for batch in self._batches:
                batch.install()
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        self._static_steps = None
        for batch in self._batches:
            batch.remove()

    @property
    def row_count(self) -> int:
        """Number of rows, one per lane."""
        return len(self._order)

    @property
    def reads_in_parts(self) -> bool:
        """Whether a text read part by part leaves the same in the caches, but for rounding."""
        return all(batch.reads_in_parts for batch in self._batches)

    @property
    def caches(self) -> list[DynamicCache]:
        """Caches of each batch of rows that read the same weights."""
        return [batch.cache for batch in self._batches]

    @property
    def rereading(self) -> list[WeightGroup]:
        """Models that read all tokens again at every step: those in `reread`, and those whose
        caches are not known."""
        return [batch.group for batch in self._batches if batch.rereads]

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values that the last step has read."""
        return sum(batch.cache_bytes for batch in self._batches)

    def clear(self, capacity: int = 0) -> None:
        """Empty the caches, and give them room for so many positions as soon as they are filled."""
        self.length = 0
        self.prefill_count += 1
        if self.static and room_for(capacity) != room_of(self.caches[0]):
            # Before there are new caches: a graph keeps the memory that it was captured with.
            self._static_steps = None
        for batch in self._batches:
            batch.clear(capacity)

    @torch.inference_mode()
    def prefill(
        self,
        tokens: Tensor,
        capacity: int = 0,
        report: Callable[[float], None] = lambda _: None,
    ) -> Outputs:
        """Empty the caches, read int64 [lanes, positions], return the last position's outputs.

        The caches have room for `capacity` positions more. `report` gets the fraction that is
        read, after every layer.
        """
        tokens = tokens.to(self._device)
        self.clear(tokens.shape[1] + capacity)
        chunk = PREFILL_CHUNK if self.reads_in_parts else tokens.shape[1]
        *chunks, last = tokens.split(chunk, dim=1)
        watched = [batch.group.anatomy for batch in self._batches]
        with LayerHooks(watched, len(chunks) + 1, report):
            for chunk in chunks:
                self._read(chunk)
            return self._read(last)

    @torch.inference_mode()
    def advance(self, tokens: Tensor, reduction: Reduction | None = None, step: int = 0) -> Outputs:
        """Read int64 [lanes, positions] after what the caches hold.

        Outputs of a static step come with what a reduction made of them, as step number `step`.
        """
        tokens = tokens.to(self._device)
        if not self.static or tokens.shape[1] > 1:
            return self._read(tokens)
        outputs = self._static_step(tokens, self.length, reduction, step)
        self.length += 1
        for cache in self.caches:
            set_length(cache, self.length)
        return outputs

    @torch.inference_mode()
    def logits(self, tokens: Tensor) -> Tensor:
        """Read int64 [lanes, positions] after what the caches hold; return the logits of every
        position, [positions, lanes, vocabulary]. Only where `reads_in_parts`."""
        tokens = tokens.to(self._device)
        z = [batch.logits(tokens[batch.lanes], self.length) for batch in self._batches]
        self.length += tokens.shape[1]
        return torch.cat([part.to(self._device) for part in z])[self._order].transpose(0, 1)

    def _static_step(
        self, tokens: Tensor, length: int, reduction: Reduction | None, step: int
    ) -> Outputs:
        """Read int64 [lanes, 1] after `length` positions, of which the caches are not told."""
        if self._static_steps is None:
            self._static_steps = StaticSteps(
                *(self._batches, self._join, self._position, self._vocabulary),
                graphs=self._graphs,
            )
        outputs = self._static_steps.advance(tokens, length, reduction, step)
        self.refusal = self._static_steps.refusal
        return outputs

    @torch.inference_mode()
    def _read(self, tokens: Tensor) -> Outputs:
        """Read int64 [lanes, positions] by every batch's own way."""
        outputs = [batch.advance(tokens[batch.lanes], self.length) for batch in self._batches]
        self.length += tokens.shape[1]
        self._vocabulary = outputs[0].z.shape[-1]
        return self._join(outputs)

    def _join(self, outputs: Sequence[Outputs]) -> Outputs:
        """Outputs of all lanes from those of the batches."""
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
        """Cut the caches to so many positions; False, with nothing done, if they cannot be cut."""
        surplus = self.length - positions
        if surplus == 0:
            return True
        if any(batch.rope.crosses(positions, self.length) for batch in self._batches):
            return False
        if not crop(self.caches, surplus):
            return False
        self.length = positions
        return True

    @torch.inference_mode()
    def advance_from(self, positions: int, tokens: Tensor) -> Outputs | None:
        """Read int64 [lanes, 1] after the first `positions` only and leave the caches unchanged.

        None, with nothing done, if the caches cannot be cut.
        """
        if self.static:
            return self._look_back(positions, tokens)
        caches = self.caches
        # A cache that cannot be cut could not forget these tokens either.
        if not can_crop(caches) or any(
            batch.rope.crosses(positions, self.length) for batch in self._batches
        ):
            return None
        restore, length = snapshot(caches), self.length
        tokens_before = [batch.tokens for batch in self._batches]
        try:
            self.crop(positions)
            return self.advance(tokens)
        finally:
            restore()
            self.length = length
            for batch, before in zip(self._batches, tokens_before, strict=True):
                batch.tokens = before

    def _look_back(self, positions: int, tokens: Tensor) -> Outputs | None:
        """Read again at a position of fixed caches: what is written there was there before.

        None, with nothing done, if what comes after has no numbers, of which a mask makes none.
        """
        if not all(finite_after(cache, positions) for cache in self.caches):
            return None
        outputs = self._static_step(tokens.to(self._device), positions, None, 0)
        if positions == self.length:
            for cache in self.caches:
                clear_position(cache, positions)
        return outputs
