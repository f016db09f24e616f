"""Conditions at which decoding stops: `kl > 5`, `lane 2 cos_p < 0.5`, `lane 1 collapses`."""

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ...errors import UserError
from ..divergence import differs
from ..records import Drift, Header, Step, Token
from .collapse import FEWEST, LEVEL, WINDOW, is_collapsed, shares_at

MEASURES = tuple(field for field in Drift.__struct_fields__ if field != "top1")
TOKEN_MEASURES = ("prob", "logprob", "entropy", "margin")
IN_NATS = {"kl", "kl_rev", "est_kl", "logq", "logprob", "entropy"}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_PATTERN = re.compile(
    r"(?:lane\s+(?P<lane>\d+)\s+)?"
    r"(?:(?P<word>collapses|differs)"
    r"|(?P<local>local\.)?(?P<measure>\w+)\s*(?P<comparison>[<>]=?)\s*(?P<number>\S+))"
)


@dataclass(frozen=True)
class Breakpoint:
    """Condition on the lanes that it looks at."""

    text: str
    lanes: tuple[int, ...]
    sentences: Callable[[Sequence[Step], range, int], Iterable[str]]
    """Sentence on a lane at each of these steps, in order; empty where the condition is not met."""

    def hit(self, steps: Sequence[Step], number: int) -> str:
        """Sentence on the first lane that meets the condition at a step; empty if none."""
        at = range(number, number + 1)
        sentences = (
            sentence for lane in self.lanes for sentence in self.sentences(steps, at, lane)
        )
        return next(filter(None, sentences), "")


def parse_breakpoint(text: str, header: Header) -> Breakpoint:
    """Parse a condition. Raises `UserError` with what can be written."""
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise UserError(
            f"{text.strip()!r} is no condition; write kl > 5, cos_p < 0.5, lane 2 entropy < 0.1, "
            "lane 1 collapses or differs"
        )
    names = [lane.name for lane in header.lanes]
    if match["lane"] is not None and int(match["lane"]) >= len(names):
        raise UserError(f"there is no lane {match['lane']}; lanes are 0 to {len(names) - 1}")
    measure = match["measure"]
    needs_variant = measure in MEASURES or match["word"] == "differs"
    if match["lane"] is not None:
        lanes = (int(match["lane"]),)
        if needs_variant and lanes == (0,):
            raise UserError("lane 0 is the baseline, which does not drift from itself")
    else:
        lanes = tuple(range(1 if needs_variant else 0, len(names)))
    if match["word"] == "collapses":
        return Breakpoint(
            text, lanes, lambda steps, numbers, lane: _collapses(steps, numbers, lane, names[lane])
        )
    if match["word"] == "differs":
        return _at_each_step(
            text, lanes, lambda step, lane: f"{names[lane]} differs" if differs(step, lane) else ""
        )
    return _at_each_step(text, lanes, _comparison(match, names))


def _at_each_step(
    text: str, lanes: tuple[int, ...], test: Callable[[Step, int], str]
) -> Breakpoint:
    """Condition that looks at one step alone."""
    return Breakpoint(
        text, lanes, lambda steps, numbers, lane: (test(steps[n], lane) for n in numbers)
    )


def _comparison(match: re.Match[str], names: list[str]) -> Callable[[Step, int], str]:
    measure, sign, local = match["measure"], match["comparison"], bool(match["local"])
    if measure not in MEASURES and (local or measure not in TOKEN_MEASURES):
        known = ", ".join(MEASURES if local else (*MEASURES, *TOKEN_MEASURES))
        raise UserError(f"there is no measure {measure}; there are {known}")
    try:
        limit = float(match["number"])
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit):
        raise UserError(f"{match['number']!r} is no number")
    compare = _COMPARISONS[sign]
    unit = " nats" if measure in IN_NATS else ""

    def test(step: Step, lane: int) -> str:
        record = _record(step, lane, measure, local)
        value = None if record is None else getattr(record, measure)
        if value is None or not compare(value, limit):
            return ""
        return f"{'local ' * local}{measure} of {names[lane]} is {value:.4g}{unit}"

    return test


def _record(step: Step, lane: int, measure: str, local: bool) -> Drift | Token | None:
    if measure in TOKEN_MEASURES:
        return step.lanes[lane]
    return step.local_of(lane) if local else step.drift_of(lane)


def _collapses(steps: Sequence[Step], numbers: range, lane: int, name: str) -> Iterator[str]:
    """Sentences on a lane at the steps at which it has collapsed."""
    shares = shares_at(steps, numbers, lane)
    # Most lanes repeat too little for the baseline to matter.
    compared = lane and max(shares, default=0) >= LEVEL
    of_baseline = shares_at(steps, numbers, 0) if compared else [0.0] * len(shares)
    for number, share, other in zip(numbers, shares, of_baseline, strict=True):
        # A lane that has ended repeats nothing any more.
        running = steps[number].lanes[lane] is not None
        if number + 1 < FEWEST or not running or not is_collapsed(share, other):
            yield ""
            continue
        baseline = f", {other:.0%} of the baseline's" if lane else ""
        yield f"{name} collapses: {share:.0%} of its last {WINDOW} tokens' 4-grams repeat{baseline}"
