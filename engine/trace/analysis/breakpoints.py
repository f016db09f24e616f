"""Conditions at which decoding stops: `kl > 5`, `lane 2 cos_p < 0.5`, `lane 1 repeats`."""

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...errors import UserError
from ..divergence import chosen_tokens, differs
from ..records import Drift, Header, Step, Token

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
    r"(?:(?P<word>repeats|differs)"
    r"|(?P<local>local\.)?(?P<measure>\w+)\s*(?P<comparison>[<>]=?)\s*(?P<number>\S+))"
)

LONGEST_PERIOD = 16
REPETITION_TOKENS = 24
"""Tokens that a repetition must fill; it also comes at least three times."""
WINDOW = max(3 * LONGEST_PERIOD, REPETITION_TOKENS)
"""Number of newest steps that a condition looks at."""


@dataclass(frozen=True)
class Breakpoint:
    """Condition on the lanes that it looks at."""

    text: str
    lanes: tuple[int, ...]
    test: Callable[[Sequence[Step], int], str]
    """Sentence on a lane at the last of the steps; empty if the condition is not met."""

    def hit(self, steps: Sequence[Step]) -> str:
        """Sentence on the first lane that meets the condition at the last step; empty if none."""
        return next((sentence for lane in self.lanes if (sentence := self.test(steps, lane))), "")


def parse_breakpoint(text: str, header: Header) -> Breakpoint:
    """Parse a condition. Raises `UserError` with what can be written."""
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise UserError(
            f"{text.strip()!r} is no condition; write kl > 5, cos_p < 0.5, lane 2 entropy < 0.1, "
            "lane 1 repeats or differs"
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
    if match["word"] == "repeats":
        return Breakpoint(text, lanes, lambda steps, lane: _repeats(steps, lane, names[lane]))
    if match["word"] == "differs":
        return Breakpoint(
            text,
            lanes,
            lambda steps, lane: f"{names[lane]} differs" if differs(steps[-1], lane) else "",
        )
    return Breakpoint(text, lanes, _comparison(match, names))


def _comparison(match: re.Match[str], names: list[str]) -> Callable[[Sequence[Step], int], str]:
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

    def test(steps: Sequence[Step], lane: int) -> str:
        record = _record(steps[-1], lane, measure, local)
        value = None if record is None else getattr(record, measure)
        if value is None or not compare(value, limit):
            return ""
        return f"{'local ' * local}{measure} of {names[lane]} is {value:.4g}{unit}"

    return test


def _record(step: Step, lane: int, measure: str, local: bool) -> Drift | Token | None:
    if measure in TOKEN_MEASURES:
        return step.lanes[lane]
    return step.local_of(lane) if local else step.drift_of(lane)


def _repeats(steps: Sequence[Step], lane: int, name: str) -> str:
    tail = chosen_tokens(steps[-WINDOW:], lane)
    # A lane that has ended repeats nothing any more.
    ended = steps[-1].lanes[lane] is None
    period = None if ended else repeated_period(tail)
    return "" if period is None else f"{name} repeats its last {period} tokens"


def repeated_period(tokens: Sequence[int]) -> int | None:
    """Least period p, at most 16, with which the last max(3p, 24) tokens repeat, or None."""
    for period in range(1, LONGEST_PERIOD + 1):
        length = max(3 * period, REPETITION_TOKENS)
        tail = tokens[-length:]
        if len(tail) == length and tail[period:] == tail[:-period]:
            return period
    return None
