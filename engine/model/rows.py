"""Rows of a forward pass that read the same tokens and differ in which parts are pruned."""

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..foreign import foreign_code
from ..out_of_memory import out_of_memory, release_failed_attempt
from ..trace.blame import Part
from .branches import Branches, Streams
from .dropped import SUBLAYERS, Dropped
from .gates import Gates
from .installed import InstalledHooks
from .rope import ChangingRope
from .row_memory import RowMemory, RowSize, measure_row
from .swapped_weights import OUTSIDE, DifferingModules, SwappedWeights
from .weight_group import WeightGroup

log = logging.getLogger(__name__)

SHARING_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.2}
"""Largest root mean square of the change of a row's logits, over their standard deviation, that
another number of rows makes by rounding. The wrong row or mask moves them by 0.5 and more."""


Report = Callable[[float], None]
"""Called with the fraction that is done."""


@dataclass(frozen=True)
class Row:
    """What a row of a batch prunes."""

    dropped: Dropped = field(default_factory=Dropped)
    """Sublayers that do not reach the residual stream."""
    swapped: frozenset[Part] = frozenset()
    """Parts with the weights of the counterpart."""

    def in_layer(self, layer: int) -> tuple[bool, ...]:
        """What the row is like in a layer; equal for rows that compute the same there."""
        parts = [Part(sublayer=sublayer, layer=layer) for sublayer in SUBLAYERS]
        return (
            *(layer in self.dropped.of(sublayer) for sublayer in SUBLAYERS),
            *(part in self.swapped for part in parts),
        )


@dataclass(frozen=True)
class Counterpart:
    """Model whose weights rows swap in."""

    differing: DifferingModules
    back: bool
    """Whether it is the first of the two that `differing` compares."""


class WorkProgress:
    """Progress of work whose parts are reported as they are done."""

    def __init__(self, total: int, report: Report) -> None:
        self._total, self._done, self._report = total, 0, report

    def advance(self, work: int) -> None:
        self._done += work
        # A batch that memory had no room for was begun again.
        self._report(min(1.0, self._done / self._total))


class RowReader:
    """Reads the same tokens in rows over one model; nothing stays installed on it between rows."""

    def __init__(self, group: WeightGroup, counterpart: Counterpart | None) -> None:
        """Nothing is to be installed on the models but what prepares them to decode."""
        self._group = group
        self._counterpart = counterpart
        self._rope = ChangingRope(group.model)

    def memory(self, positions: int, needed: int) -> RowMemory:
        """What reading so many tokens takes, with the logits of so many positions needed."""
        return RowMemory(self._group, self._row_size, positions, needed)

    def work(self, rows: Sequence[Row], at_once: int) -> int:
        """Layers times streams that reading the rows will compute."""
        return sum(self._streams(batch).work for batch in _batches(rows, at_once))

    def read_all(
        self, rows: Sequence[Row], tokens: Tensor, needed: Tensor, report: Report
    ) -> Iterator[Tensor]:
        """Read as `read` does, as many rows at once as memory has room for."""
        at_once = self.memory(len(tokens), len(needed)).rows_at_once(len(rows))
        progress = WorkProgress(self.work(rows, at_once), report)
        return self.read(rows, tokens, needed, at_once, progress.advance)

    def read(
        self,
        rows: Sequence[Row],
        tokens: Tensor,
        needed: Tensor,
        at_once: int,
        report: Callable[[int], None],
    ) -> Iterator[Tensor]:
        """Read int64 [positions] in every row; yield the logits [needed, vocabulary] of one row
        after another at the positions int64 [needed].

        A batch of at most `at_once` rows is computed when its first row is asked for; one that
        memory has no room for is split. `report` gets the number of streams after every layer.
        Raises `UserError` if there is no memory for one row, or the model cannot read the tokens.
        """
        pending = [*_batches(rows, at_once)]
        while pending:
            batch = pending.pop(0)
            try:
                z = self._read_batch(batch, tokens, needed, report)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                release_failed_attempt(error)
                z = None
            if z is not None:
                yield from z
                # Not held while the next ones are computed.
                del z
            elif len(batch) == 1:
                raise self.memory(len(tokens), len(needed)).refusal()
            else:
                half = len(batch) // 2
                pending = [batch[:half], batch[half:], *pending]

    def _read_batch(
        self,
        rows: Sequence[Row],
        tokens: Tensor,
        needed: Tensor,
        report: Callable[[int], None],
    ) -> Iterator[Tensor]:
        streams, family = self._streams(rows), self._group.model.config.model_type
        with foreign_code(f"this {family} model cannot read a text in rows"):
            z = self._logits(rows, streams, tokens, needed, report)
        # Copies, as whoever holds a row would hold its whole batch.
        return (z[stream].clone() for stream in streams.of_row)

    @torch.inference_mode()
    def _logits(
        self,
        rows: Sequence[Row],
        streams: Streams,
        tokens: Tensor,
        needed: Tensor,
        report: Callable[[int], None],
    ) -> Tensor:
        """Logits [streams, needed, vocabulary] after the last layer."""
        model = self._group.model
        layers = [layer.module for layer in self._group.anatomy.layers]
        hooks: list[InstalledHooks] = [
            Branches(layers, streams, report),
            *self._swaps(rows, streams),
            self._gates(rows, streams),
            _NeededPositions(self._group, needed),
        ]
        inputs = tokens.to(model.device).expand(streams.fed, -1)
        try:
            for hook in hooks:
                hook.install()
            return model(input_ids=inputs, use_cache=False).logits
        finally:
            for hook in hooks:
                hook.remove()
            # Stock code keeps the angles of the longest text so far.
            self._rope.forget()

    def _streams(self, rows: Sequence[Row]) -> Streams:
        depth = range(len(self._group.anatomy.layers))
        kinds = [[row.in_layer(layer) for layer in depth] for row in rows]
        return Streams(kinds, shared=len(rows) > 1 and self.shares_layers)

    def _gates(self, rows: Sequence[Row], streams: Streams) -> Gates:
        closed: dict[nn.Module, Tensor] = {}
        for number, layer in enumerate(self._group.anatomy.layers):
            dropped = [rows[row].dropped for row in streams.first_rows[number]]
            attention = torch.tensor([number in each.attention for each in dropped])
            closed |= dict.fromkeys(layer.attention, attention)
            mlp = torch.tensor([number in each.mlp for each in dropped])
            closed |= dict.fromkeys(layer.mlp, mlp)
        return Gates(closed)

    def _swaps(self, rows: Sequence[Row], streams: Streams) -> list[SwappedWeights]:
        if self._counterpart is None:
            return []
        differing = self._counterpart.differing
        swapped = {}
        for part in differing.by_part:
            # All rows of a batch are alike outside of the layers.
            numbers = [0] if part.layer is None else streams.first_rows[part.layer]
            swapped[part] = torch.tensor([part in rows[row].swapped for row in numbers])
        return [SwappedWeights(differing, swapped, back=self._counterpart.back)]

    @cached_property
    def shares_layers(self) -> bool:
        """Whether rows that share layers give the logits of rows that do not, tried with rows of
        which each closes the gate of one attention."""
        anatomy = self._group.anatomy
        if not anatomy.one_stream or not all(layer.attention for layer in anatomy.layers):
            return False
        depth = range(len(anatomy.layers))
        rows = [Row(), *(Row(Dropped(attention=frozenset({layer}))) for layer in depth)]
        kinds = [[row.in_layer(layer) for layer in depth] for row in rows]
        tokens, last = torch.tensor([1, 2]), torch.tensor([1])
        try:
            together, alone = (
                self._logits(rows, streams, tokens, last, lambda _: None)[streams.of_row]
                for streams in (Streams(kinds, shared=shared) for shared in (True, False))
            )
        except Exception as error:
            if out_of_memory(error):
                raise
            log.info("%s does not share layers", self._group.name, exc_info=True)
            return False
        # [rows, vocabulary]
        together, alone = together[:, 0].double(), alone[:, 0].double()
        changes = (together - alone).square().mean(dim=-1).sqrt() / alone.std(dim=-1)
        tolerance = SHARING_TOLERANCE.get(self._group.model.dtype, SHARING_TOLERANCE[torch.float32])
        # Logits that are no numbers prove nothing.
        return bool((changes <= tolerance).all())

    @cached_property
    def _row_size(self) -> RowSize:
        return measure_row(self._group)


def _batches(rows: Sequence[Row], at_once: int) -> Iterator[Sequence[Row]]:
    """Rows in their order, in batches of at most so many that are alike outside of the layers."""
    for _, alike in itertools.groupby(rows, lambda row: OUTSIDE in row.swapped):
        group = [*alike]
        yield from (group[begin : begin + at_once] for begin in range(0, len(group), at_once))


class _NeededPositions(InstalledHooks):
    """A hook that gives the head the needed positions alone."""

    def __init__(self, group: WeightGroup, needed: Tensor) -> None:
        super().__init__()
        self._head = group.anatomy.head
        self._needed = needed

    def _register(self) -> Iterator[RemovableHandle]:
        yield self._head.register_forward_pre_hook(self._select)

    def _select(self, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden: Tensor = args[0]
        return (hidden[:, self._needed.to(hidden.device)], *args[1:])
