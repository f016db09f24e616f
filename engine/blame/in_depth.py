"""The baseline's residual stream put into a lane at one point of its depth: activation patching.

At the last position alone, or at all positions. The method is that of causal tracing: Meng et al.,
"Locating and Editing Factual Associations in GPT" (2022), where a clean run is put into a corrupted
one; here the clean run is the baseline's, and what corrupts is pruning.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import UserError
from ..model.dropped import Dropped
from ..model.installed import InstalledHooks
from ..model.residual_stream import StreamHooks
from ..model.stream_writes import takes_writes, writable_points
from ..model.swapped_weights import OUTSIDE
from ..model.weight_group import WeightGroup
from ..progress import Progress
from ..trace.blame import Blame, NextToken, Part, WhereInDepth
from ..variants.builder import LaneModel
from .blamed_step import BlamedStep
from .cached_text import CachedText
from .next_token import NextTokenReader
from .pruned_lane import Form, PrunedLane


def where_in_depth(
    baseline: WeightGroup, lane: LaneModel, step: BlamedStep, blame: Blame, progress: Progress
) -> WhereInDepth:
    """Put the baseline's residual stream into the lane at each point of its depth.

    Raises `UserError` for a family whose stream is not known, or that keeps more of a text than
    keys and values.
    """
    for group in {baseline, lane.group}:
        if not takes_writes(group):
            raise UserError(
                f"the residual stream of a {group.model.config.model_type} model is not known at "
                "every point, so nothing can be put into it; only the parts of the lane can be "
                "blamed, and where in the text"
            )
    streams = _BaselineStreams(baseline)
    *text, last = step.text
    what = f"reading {len(text)} tokens as the baseline"
    theirs = CachedText(
        baseline, Dropped(), text, lambda done: progress(what, done), [streams.hooks]
    )
    p = theirs.read(last, hooks=[streams.hooks])[0]
    del theirs
    tokens = blame.baseline.token, blame.pruned.token

    def new_reader(p: Tensor) -> NextTokenReader:
        return NextTokenReader(p, tokens, step.temperature, step.texts)

    at_last = _at_last(lane, step, streams, new_reader(p), progress)
    return WhereInDepth(
        last=at_last, every=_at_all(baseline, lane, step, streams, new_reader, progress)
    )


class _BaselineStreams:
    """The baseline's residual stream of a text, taken while the hooks are installed."""

    def __init__(self, baseline: WeightGroup) -> None:
        self.hooks = StreamHooks(baseline.anatomy, self._take)
        self.last: dict[int, Tensor] = {}
        """For each point the stream of the last position that was read, [hidden]."""
        self._inputs: list[Tensor] = []

    def _take(self, point: int, stream: Tensor) -> None:
        self.last[point] = stream[0, -1].clone()
        if point == 0:
            self._inputs.append(stream)

    @property
    def inputs(self) -> Tensor:
        """Point 0 of all positions, [1, positions, hidden]."""
        return torch.cat(self._inputs, dim=1)


def _at_last(
    lane: LaneModel,
    step: BlamedStep,
    streams: _BaselineStreams,
    reader: NextTokenReader,
    progress: Progress,
) -> list[NextToken | None]:
    """The last token read over the lane's caches, in a row for each point at which the stream is
    the baseline's."""
    anatomy = lane.group.anatomy
    *text, last = step.text
    what = f"reading {len(text)} tokens as {lane.recipe.name}"
    own = CachedText(lane.group, lane.dropped, text, lambda done: progress(what, done))
    writable = writable_points(anatomy)
    points = [point for point, possible in enumerate(writable) if possible]
    found: list[NextToken | None] = [None] * len(writable)
    count = own.rows_at_once(len(points))
    for begin in range(0, len(points), count):
        progress("putting in the baseline's stream", begin / len(points))
        rows = {point: row for row, point in enumerate(points[begin : begin + count])}

        def write(point: int, stream: Tensor, rows: dict[int, int] = rows) -> None:
            if point in rows:
                stream[rows[point], -1] = streams.last[point].to(stream)

        z = own.read(last, len(rows), hooks=[StreamHooks(anatomy, write)])
        for point, row in rows.items():
            found[point] = reader(z[row])
    return found


def _at_all(
    baseline: WeightGroup,
    lane: LaneModel,
    step: BlamedStep,
    streams: _BaselineStreams,
    new_reader: Callable[[Tensor], NextTokenReader],
    progress: Progress,
) -> list[NextToken | None]:
    """Forms of the lane in which all parts before a point are given back: what comes after it reads
    the baseline's stream at all positions, and what the lane's own layers kept of them."""
    pruned = PrunedLane(baseline, lane)
    forms = [
        _after(point, pruned.parts) if possible else None
        for point, possible in enumerate(writable_points(lane.group.anatomy))
    ]
    distinct = [*dict.fromkeys(form for form in forms if form is not None)]
    length = len(step.text)
    what = f"reading {pruned.need(distinct, length, 1)}"
    # In 16 bits a text that is read token by token has another p than one that is read as forms.
    (p,) = pruned.logits(step.text, [frozenset()], [length - 1], lambda _: progress(what, None))
    reader = new_reader(p[0])
    with ExitStack() as hooks:
        # A form has the embeddings of the lane with its head, which stays the lane's.
        if OUTSIDE in pruned.parts:
            inputs = streams.inputs
            for group in {baseline, lane.group}:
                hooks.enter_context(_LayerInputs(group, inputs))
        logits = pruned.logits(step.text, distinct, [length - 1], lambda done: progress(what, done))
        by_form = {form: reader(z[0]) for form, z in zip(distinct, logits, strict=True)}
    return [None if form is None else by_form[form] for form in forms]


class _LayerInputs(InstalledHooks):
    """A hook that overwrites what the first layer reads, in all rows, by [1, positions, hidden]."""

    def __init__(self, group: WeightGroup, inputs: Tensor) -> None:
        super().__init__()
        self._layer = group.anatomy.layers[0].module
        self._inputs = inputs

    def _register(self) -> Iterator[RemovableHandle]:
        yield self._layer.register_forward_pre_hook(self._write, with_kwargs=True)

    def _write(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stream = (args[0] if args else kwargs["hidden_states"]).flatten(2)
        # Shorter texts are those on which the reading of rows is tried out.
        if stream.shape[1] == self._inputs.shape[1]:
            stream.copy_(self._inputs)


def _after(point: int, parts: Sequence[Part]) -> Form:
    """The parts that a forward pass reaches after a point of the stream."""
    return frozenset(
        part
        for part in parts
        if part.layer is None or 2 * part.layer + (1 if part.sublayer == "attention" else 2) > point
    )
