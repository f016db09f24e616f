"""What a list of traces says of one: its number of steps and where its lanes first differ.

Of a step only the chosen tokens are read, and of those only what tells a divergence.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from ..errors import UserError, reason
from .divergence import differs, is_tie
from .file import DAMAGE, MAX_HEADER_BYTES, damaged_line, parse_header
from .records import Branch, Header, Int, Plain, Rewind, Switch
from .trace import Branches


class Divergence(Plain, frozen=True):
    """First step at which a lane's token is not the baseline's: of all lanes, the earliest."""

    step: Int
    lane: Int
    """Lane that differs there; the first of them if several do."""
    tie: bool


class Outline(Plain, frozen=True):
    """Facts of a trace's open branch, which are those that a replay opens with."""

    steps: Int
    branches: Int
    divergence: Divergence | None


class ReadingCancelled(Exception):  # noqa: N818
    """Raised when the caller needs no outline any more."""


class _Token(msgspec.Struct, frozen=True, gc=False):
    token: Int
    margin: float | None
    forced: bool = False
    not_numbers: bool = False


class _Step(msgspec.Struct, frozen=True, tag_field="kind", tag="step"):
    step: Int
    lanes: list[_Token | None]


class _Read(msgspec.Struct, frozen=True, tag_field="kind", tag="read"):
    step: Int


class _Blamed(msgspec.Struct, frozen=True, tag_field="kind", tag="blamed"):
    step: Int


class _Difference(NamedTuple):
    """Comparison of a step's lanes with the baseline."""

    step: int
    lane: int | None
    """First lane that differs; None if none does."""
    tie: bool


def read_outline(path: Path, cancelled: Callable[[], bool]) -> Outline:
    """Read the outline of a trace file; a last line that is not whole is taken as the end.

    Raises `UserError` if the file cannot be read or is damaged, as far as it is looked at, and
    `ReadingCancelled` soon after `cancelled` is true.
    """
    branches: Branches[_Difference] = Branches()
    decoder = msgspec.json.Decoder(_Step | _Read | _Blamed | Rewind | Branch | Switch)
    try:
        with path.open("rb") as file:
            header = parse_header(path, file.readline(MAX_HEADER_BYTES))
            for number, line in enumerate(file, start=2):
                if cancelled():
                    raise ReadingCancelled
                if not line.endswith(b"\n"):
                    break
                try:
                    match event := decoder.decode(line):
                        case _Step():
                            branches.append(_difference(header, event))
                        case _Read() | _Blamed():
                            if event.step >= len(branches.steps):
                                raise ValueError(f"there is no step {event.step} to read")
                        case _:
                            branches.move(event)
                except DAMAGE as error:
                    raise damaged_line(path, number, error) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error
    first = next((step for step in branches.steps if step.lane is not None), None)
    return Outline(
        steps=len(branches.steps),
        branches=len(branches.branches),
        divergence=None
        if first is None or first.lane is None
        else Divergence(step=first.step, lane=first.lane, tie=first.tie),
    )


def _difference(header: Header, step: _Step) -> _Difference:
    if len(step.lanes) != len(header.lanes):
        raise ValueError("its lists do not fit the header's lanes")
    lane = next((lane for lane in range(1, len(step.lanes)) if differs(step, lane)), None)
    return _Difference(step.step, lane, lane is not None and is_tie(header, step, lane))
