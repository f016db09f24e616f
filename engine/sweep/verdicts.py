"""Sentence per family: up to which number each kind of task holds."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..trace.figures import score
from .curves import KIND_NAMES, Curves, Point

RULE = (
    "A kind of task holds to the largest number up to which no 95 % interval of its score less the "
    "baseline's (paired by item; its tasks taken together, items resampled within them) lies "
    "wholly below 0, and gives way at the next one tried. A smaller loss than the one in brackets "
    "would have gone unseen there: half the width of that interval, or 3 in the number of items "
    "where that is more. Each interval is taken by itself: of 40 without any loss, one lies below "
    "0 by chance."
)


@dataclass(frozen=True)
class Verdict:
    """Number to which a kind of task holds in a family."""

    curves: Curves
    holds_to: float
    gives_way_at: float | None
    """First number whose interval lies below 0; None if none does."""
    unseen: float | None
    """Loss below which none would have been seen at `holds_to`; None at the baseline."""

    def __str__(self) -> str:
        kind, number = KIND_NAMES[self.curves.kind], f"{self.holds_to:g}"
        if self.unseen is None:
            return f"{kind} gives way at {self.gives_way_at:g}, the least tried"
        most = ", the most tried" if self.gives_way_at is None else ""
        return f"{kind} holds to {number}{most} ({score(self.unseen)})"


def judge(curves: Curves) -> Verdict | None:
    """Verdict on a kind of task; None where nothing was dropped, or no loss could be seen."""
    tried = [point for point in curves.score if point.number]
    if not tried or not curves.judged:
        return None
    last: Point | None = None
    for point in tried:
        if point.delta is not None and point.delta[1] < 0:
            return Verdict(curves, last.number if last else 0, point.number, _unseen(last))
        last = point
    return Verdict(curves, tried[-1].number, None, _unseen(last))


def _unseen(point: Point | None) -> float | None:
    if point is None:
        return None
    low, high = point.delta or (0.0, 0.0)
    # The rule of three: as many items without a loss leave 3 in their number possible.
    return max((high - low) / 2, min(1.0, 3 / point.items))


def sentences(curves: Sequence[Curves]) -> list[str]:
    """Sentence for each family, the kind of task that holds longest first."""
    families: dict[str, list[Verdict]] = {}
    for one in curves:
        if verdict := judge(one):
            families.setdefault(one.family, []).append(verdict)
    return [
        f"{family}: {', '.join(map(str, sorted(verdicts, key=lambda v: -v.holds_to)))}"
        for family, verdicts in families.items()
    ]
