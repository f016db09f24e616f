"""Rows of a forward pass that read the same tokens and differ in which parts are pruned."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..foreign import foreign_code
from ..trace.blame import Part
from .dropped import Dropped
from .gates import Gates
from .installed import InstalledHooks
from .rope import ChangingRope
from .swapped_weights import DifferingModules, SwappedWeights
from .weight_group import WeightGroup

Report = Callable[[float], None]
"""Called with the fraction that is done."""


@dataclass(frozen=True)
class Row:
    """What a row of a batch prunes."""

    dropped: Dropped = field(default_factory=Dropped)
    """Sublayers that do not reach the residual stream."""
    swapped: frozenset[Part] = frozenset()
    """Parts with the weights of the counterpart."""


@dataclass(frozen=True)
class Counterpart:
    """Model whose weights rows swap in."""

    differing: DifferingModules
    back: bool
    """Whether it is the first of the two that `differing` compares."""


@torch.inference_mode()
def read_rows(
    group: WeightGroup,
    counterpart: Counterpart | None,
    rows: Sequence[Row],
    tokens: Tensor,
    needed: Tensor,
    report: Report,
) -> Iterator[Tensor]:
    """Read int64 [positions] in every row; yield the logits [needed, vocabulary] of one row after
    another at the positions int64 [needed].

    Nothing is to be installed on the models but what prepares them to decode.
    """
    count = _rows_at_once(len(tokens))
    batches = [rows[begin : begin + count] for begin in range(0, len(rows), count)]
    for number, batch in enumerate(batches):
        report(number / len(batches))
        yield from _read_batch(group, counterpart, batch, tokens, needed)


def _rows_at_once(positions: int) -> int:
    return max(1, 2048 // positions)


def _read_batch(
    group: WeightGroup,
    counterpart: Counterpart | None,
    rows: Sequence[Row],
    tokens: Tensor,
    needed: Tensor,
) -> Tensor:
    """Logits [rows, needed, vocabulary]."""
    model = group.model
    closed: dict[nn.Module, Tensor] = {}
    for number, layer in enumerate(group.anatomy.layers):
        attention = torch.tensor([number in row.dropped.attention for row in rows])
        closed |= dict.fromkeys(layer.attention, attention)
        mlp = torch.tensor([number in row.dropped.mlp for row in rows])
        closed |= dict.fromkeys(layer.mlp, mlp)
    swaps = (
        [SwappedWeights(counterpart.differing, [r.swapped for r in rows], back=counterpart.back)]
        if counterpart
        else []
    )
    hooks: list[InstalledHooks] = [*swaps, Gates(closed), _NeededPositions(group, needed)]
    inputs = tokens.to(model.device).expand(len(rows), -1)
    try:
        for hook in hooks:
            hook.install()
        with foreign_code(f"this {model.config.model_type} model cannot read a text in rows"):
            return model(input_ids=inputs, use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
        # Stock code keeps the angles of the longest text so far.
        ChangingRope(model).forget()


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
