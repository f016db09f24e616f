"""Forms of a lane in which only some of its parts are pruned, read as rows of few passes."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..errors import UserError
from ..model.dropped import SUBLAYERS, Dropped
from ..model.rows import Counterpart, Report, Row, read_rows
from ..model.swapped_weights import OUTSIDE, compare_modules
from ..model.weight_group import WeightGroup
from ..trace.blame import Part
from ..variants.builder import LaneModel

Form = frozenset[Part]
"""The parts that a form of a lane has pruned: none is the baseline, all the lane as it is."""


class PrunedLane:
    """A variant beside its baseline, of which any form can be read.

    A dropped part is a gate. Where the variant has weights of its own, a form with most of them is
    a row of the variant's model, in which the parts given back have the baseline's weights; one
    with few of them is a row of the baseline's, in which they have the variant's.
    """

    def __init__(self, baseline: WeightGroup, lane: LaneModel) -> None:
        """Raises `UserError` for a lane that prunes nothing, or a model of another depth."""
        name, depth = lane.recipe.name, len(baseline.anatomy.layers)
        self._baseline, self._group, self._dropped = baseline, lane.group, lane.dropped
        self._differing = compare_modules(baseline, lane.group, name)
        dropped = {
            Part(sublayer=sublayer, layer=layer)
            for sublayer in SUBLAYERS
            for layer in lane.dropped.of(sublayer)
        }
        parts = dropped | self._differing.by_part.keys()
        if not parts:
            raise UserError(f"{name} prunes nothing, so there is nothing to blame")
        in_layers = [
            part
            for layer in range(depth)
            for sublayer in SUBLAYERS
            if (part := Part(sublayer=sublayer, layer=layer)) in parts
        ]
        self.parts = [*in_layers, *([OUTSIDE] if OUTSIDE in parts else [])]
        """The pruned parts in the order in which a forward pass reaches them, `outside` last."""

    def logits(
        self, tokens: Sequence[int], forms: Sequence[Form], needed: Sequence[int], report: Report
    ) -> Iterator[Tensor]:
        """Read tokens in every form; yield the logits [needed, vocabulary] of one form after
        another, at the needed positions."""
        weights = self._differing.by_part.keys()
        text, positions = torch.tensor(tokens), torch.tensor(needed)
        on_variant = [2 * len(form & weights) > len(weights) for form in forms]
        pending: dict[bool, Iterator[Tensor]] = {}
        for variant in (False, True):
            chosen = [form for form, on in zip(forms, on_variant, strict=True) if on is variant]
            rows = [self._row(form, variant=variant) for form in chosen]
            group = self._group if variant else self._baseline
            counterpart = Counterpart(self._differing, back=variant) if weights else None
            pending[variant] = read_rows(group, counterpart, rows, text, positions, report)
        for variant in on_variant:
            yield next(pending[variant])

    def _row(self, form: Form, *, variant: bool) -> Row:
        weights = self._differing.by_part.keys()
        dropped = {
            sublayer: frozenset(
                layer
                for layer in self._dropped.of(sublayer)
                if Part(sublayer=sublayer, layer=layer) in form
            )
            for sublayer in SUBLAYERS
        }
        swapped = frozenset(weights - form if variant else weights & form)
        return Row(Dropped(**dropped), swapped)
