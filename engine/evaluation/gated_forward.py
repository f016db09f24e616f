"""A model's own forward pass, once for all lanes that drop the same sublayers."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..foreign import foreign_code
from ..model.dropped import Dropped
from ..model.gates import Gates
from ..model.installed import InstalledHooks
from ..model.rope import ChangingRope
from ..model.weight_group import WeightGroup
from .lane_forward import StreamOutputs
from .requests import Tokens
from .text_batches import Batch


class GatedForward:
    """Forward passes of any family, with gates at the dropped sublayers.

    Padding is on the right and no mask says so, as in lm-eval: no position reads what follows it.
    """

    def __init__(self, group: WeightGroup, lanes: Mapping[int, Dropped]) -> None:
        """`lanes` are the dropped sublayers by the number of the lane."""
        self._group = group
        self._lanes: dict[Dropped, tuple[int, ...]] = {}
        for lane, dropped in lanes.items():
            self._lanes[dropped] = (*self._lanes.get(dropped, ()), lane)
        self._rope = ChangingRope(group.model)

    def read_prefix(self, tokens: Tokens) -> None:
        if tokens:
            raise ValueError("texts of this model are read whole")

    def read(self, batch: Batch, _prefix: None, /) -> Iterator[StreamOutputs]:
        for dropped, lanes in self._lanes.items():
            yield StreamOutputs(lanes, *self._run(batch, dropped))

    def _run(self, batch: Batch, dropped: Dropped) -> tuple[Tensor, Any]:
        model = self._group.model
        family = model.config.model_type
        closed = torch.tensor([True])
        gates = Gates(dict.fromkeys(self._group.anatomy.sublayers(dropped), closed))
        gathering = _GatherHook(self._group.anatomy.head, batch.rows, batch.columns)
        try:
            with (
                foreign_code(f"this {family} model cannot read texts in a batch"),
                gates,
                gathering,
            ):
                z = model(input_ids=batch.tokens.to(model.device), use_cache=False).logits[0]
        finally:
            # Stock code keeps the angles of the longest text so far.
            self._rope.forget()
        return gathering.h, lambda start, stop: z[start:stop]


class _GatherHook(InstalledHooks):
    """A hook that gives the head the needed positions alone, as one row.

    What a family does after its head, as scaling, is then done to them.
    """

    def __init__(self, head: nn.Module, rows: Tensor, columns: Tensor) -> None:
        super().__init__()
        self._head = head
        self._rows, self._columns = rows, columns
        self.h = torch.empty(0)
        """Inputs of the head [needed, hidden]."""

    def _register(self) -> Iterator[RemovableHandle]:
        yield self._head.register_forward_pre_hook(self._gather)

    def _gather(self, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden: Tensor = args[0]
        self.h = hidden[self._rows.to(hidden.device), self._columns.to(hidden.device)]
        return (self.h[None], *args[1:])
