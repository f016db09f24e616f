"""From which position on a lane's caches must be the baseline's for its token to come back."""

from collections.abc import Callable, Sequence

from ..model.dropped import Dropped
from ..model.weight_group import WeightGroup
from ..progress import Progress
from ..trace.blame import Blame, NextToken, PatchedPosition, WhereInText
from ..variants.builder import LaneModel
from .blamed_step import BlamedStep
from .cached_text import CachedText
from .next_token import NextTokenReader

ROWS = 15
"""Positions that are tried at once, where memory allows: each time a sixteenth of them is left."""


def where_in_text(
    baseline: WeightGroup, lane: LaneModel, step: BlamedStep, blame: Blame, progress: Progress
) -> WhereInText:
    """Find the latest position that brings the baseline's token back, as the lane reads the last
    token over caches that are the baseline's from there on and its own before.

    It is found by bisection, which takes for granted that no earlier position fails where a later
    one does not. Where that is not so, it finds one of several boundaries: its position brings the
    token back, and the next one does not.
    Raises `UserError` for a family that keeps more of a text than keys and values.
    """
    *text, last = step.text

    def read(group: WeightGroup, dropped: Dropped, who: str) -> CachedText:
        what = f"reading {len(text)} tokens as {who}"
        return CachedText(group, dropped, text, lambda done: progress(what, done))

    theirs = read(baseline, Dropped(), "the baseline")
    own = read(lane.group, lane.dropped, lane.recipe.name)
    token = blame.baseline.token
    reader = NextTokenReader(
        theirs.read(last)[0], (token, blame.pruned.token), step.temperature, step.texts
    )
    tried: dict[int, NextToken] = {}

    def brings_back(positions: Sequence[int]) -> list[bool]:
        """Whether the token comes back with the baseline's caches from each of the positions on."""
        progress("trying positions of the text", None)
        z = own.read(last, len(positions), others=theirs, first=positions)
        tried.update(zip(positions, map(reader, z), strict=True))
        return [tried[position].chooses(token) for position in positions]

    # At the last position, that of the token that is read, the lane is as it is.
    ends = sorted({0, len(text)})
    returns = brings_back(ends)
    latest: int | None = ends[-1] if returns[-1] else None
    if returns[0] and not returns[-1]:
        latest = _bisect(brings_back, len(text), own.rows_at_once(ROWS))
    return WhereInText(
        prompt=step.prompt,
        tried=[PatchedPosition(position=at, next=tried[at]) for at in sorted(tried)],
        latest=latest,
    )


def _bisect(brings_back: Callable[[Sequence[int]], list[bool]], end: int, at_once: int) -> int:
    """The last position that brings the token back, 0 being one and `end` none."""
    latest = 0
    while end - latest > 1:
        between = _spread(latest, end, at_once)
        returns = brings_back(between)
        positions = [latest, *between, end]
        index = max([0, *(number for number, back in enumerate(returns, start=1) if back)])
        latest, end = positions[index], positions[index + 1]
    return latest


def _spread(begin: int, end: int, count: int) -> list[int]:
    """At most so many integers between two, evenly spread."""
    count = min(count, end - begin - 1)
    return [begin + (end - begin) * number // (count + 1) for number in range(1, count + 1)]
