"""Forms of a lane in which only some of its parts are pruned, read as rows of few passes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..decode.proof import TOLERANCE, difference
from ..errors import UserError
from ..model.device_memory import in_units
from ..model.dropped import SUBLAYERS, Dropped
from ..model.rows import Counterpart, Report, Row, RowReader, WorkProgress
from ..model.swapped_weights import OUTSIDE, compare_modules, not_alike
from ..model.weight_group import WeightGroup
from ..trace.blame import Part
from ..variants.builder import LaneModel

Form = frozenset[Part]
"""The parts that a form of a lane has pruned: none is the baseline, all the lane as it is."""

CHECKED_POSITIONS = 8
"""Length of the text on which swapped weights are checked."""


@dataclass(frozen=True)
class FormsNeed:
    """What reading forms of a lane takes, as it is known before it begins."""

    forms: int
    positions: int
    """Tokens of the text."""
    at_once: int
    """Forms that are read at once."""
    bytes: float
    """Memory that is taken at most, beside that of the models."""

    def __str__(self) -> str:
        return (
            f"{self.forms} forms of {self.positions:,} tokens, {self.at_once} at a time, in up to "
            f"{in_units(self.bytes)}"
        )


class PrunedLane:
    """A variant beside its baseline, of which any form can be read.

    A dropped part is a gate. Where the variant has weights of its own, a form with most of them is
    a row of the variant's model, in which the parts given back have the baseline's weights; one
    with few of them is a row of the baseline's, in which they have the variant's.
    """

    def __init__(self, baseline: WeightGroup, lane: LaneModel) -> None:
        """Read a few tokens to prove that forms are what they are said to be.

        Raises `UserError` for a lane that prunes nothing, a model of another depth, or one in which
        no part can be given back.
        """
        self._name, depth = lane.recipe.name, len(baseline.anatomy.layers)
        self._dropped = lane.dropped
        differing = compare_modules(baseline, lane.group, self._name)
        self._weights: frozenset[Part] = frozenset(differing.by_part)
        """Parts with weights of their own."""
        dropped = {
            Part(sublayer=sublayer, layer=layer)
            for sublayer in SUBLAYERS
            for layer in lane.dropped.of(sublayer)
        }
        parts = dropped | self._weights
        if not parts:
            raise UserError(f"{self._name} prunes nothing, so there is nothing to blame")
        in_layers = [
            part
            for layer in range(depth)
            for sublayer in SUBLAYERS
            if (part := Part(sublayer=sublayer, layer=layer)) in parts
        ]
        self.parts = [*in_layers, *([OUTSIDE] if OUTSIDE in parts else [])]
        """The pruned parts in the order in which a forward pass reaches them, `outside` last."""
        self.readers = [
            RowReader(group, Counterpart(differing, back=back) if self._weights else None)
            for back, group in ((False, baseline), (True, lane.group))
        ]
        """Readers of the baseline's model and the variant's; rows swap the other's weights in."""
        if self._weights:
            self._check_swaps(baseline)

    def need(self, forms: Sequence[Form], positions: int, needed: int) -> FormsNeed:
        """What reading these forms of a text takes, with the logits of so many positions needed.

        Raises `UserError` if there is no memory for one form.
        """
        at_once, sizes = [1], [0.0]
        for reader, chosen in zip(self.readers, self._split(forms), strict=True):
            if chosen:
                memory = reader.memory(positions, needed)
                at_once.append(memory.rows_at_once(len(chosen)))
                sizes.append(at_once[-1] * memory.row + memory.beside)
        return FormsNeed(len(forms), positions, max(at_once), max(sizes))

    def logits(
        self, tokens: Sequence[int], forms: Sequence[Form], needed: Sequence[int], report: Report
    ) -> Iterator[Tensor]:
        """Read tokens in every form; yield the logits [needed, vocabulary] of one form after
        another, at the needed positions.

        As many forms are read at once as memory has room for, when the first of them is asked for.
        `report` gets the part that is done of all forms after every layer, and may raise
        `Cancelled`. Raises `UserError` if there is no memory for one form.
        """
        text, positions = torch.tensor(tokens), torch.tensor(needed)
        split = self._split(forms)
        at_once = [
            reader.memory(len(text), len(positions)).rows_at_once(len(rows)) if rows else 1
            for reader, rows in zip(self.readers, split, strict=True)
        ]
        readings = [*zip(self.readers, split, at_once, strict=True)]
        progress = WorkProgress(
            sum(reader.work(rows, count) for reader, rows, count in readings), report
        )
        pending = [
            reader.read(rows, text, positions, count, progress.advance)
            for reader, rows, count in readings
        ]
        for form in forms:
            yield next(pending[self._on_variant(form)])

    def _split(self, forms: Sequence[Form]) -> list[list[Row]]:
        """The rows of the baseline's model and those of the variant's."""
        return [
            [self._row(form, variant=on) for form in forms if self._on_variant(form) is on]
            for on in (False, True)
        ]

    def _on_variant(self, form: Form) -> bool:
        return 2 * len(form & self._weights) > len(self._weights)

    def _row(self, form: Form, *, variant: bool) -> Row:
        """A form as a row of the variant's model, or else of the baseline's."""
        dropped = {
            sublayer: frozenset(
                layer
                for layer in self._dropped.of(sublayer)
                if Part(sublayer=sublayer, layer=layer) in form
            )
            for sublayer in SUBLAYERS
        }
        return Row(Dropped(**dropped), self._weights - form if variant else self._weights & form)

    def _check_swaps(self, baseline: WeightGroup) -> None:
        """Compare forms as rows of either model, which must give the same logits."""
        inside = self._weights - {OUTSIDE}
        ordered = [part for part in self.parts if part in self._weights]
        # The last two are rows beside others that swap other parts.
        forms = dict.fromkeys(
            (
                *(frozenset(), inside, self._weights, self._weights - inside),
                *(frozenset(ordered[::2]), frozenset(ordered[1::2])),
            )
        )
        text = torch.arange(1, 1 + CHECKED_POSITIONS)
        last = torch.tensor([CHECKED_POSITIONS - 1])
        on_either = []
        for reader, variant in zip(self.readers, (False, True), strict=True):
            rows = [Row(swapped=self._weights - form if variant else form) for form in forms]
            z = [*reader.read(rows, text, last, len(rows), lambda _: None)]
            on_either.append(torch.cat(z).to(baseline.model.device))
        on_baseline, on_variant = on_either
        dtype = baseline.model.dtype
        changed = difference(on_baseline, on_variant, dtype)
        if changed > TOLERANCE.get(dtype, TOLERANCE[torch.float32]):
            why = (
                f"with all its weights, the baseline gives other logits, by {changed:.2g} of their "
                "standard deviation"
            )
            raise UserError(not_alike(self._name, why))
