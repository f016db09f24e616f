"""Blames as a table: a row per form of a lane, a column per number."""

from collections.abc import Iterator

import msgspec

from ..blame import Blame, NextToken, Part
from ..trace import Trace
from .table import Cell, Kind

COLUMNS: dict[str, Kind] = {
    "step": "int",
    "lane": "int",
    "name": "text",
    "tokens": "text",
    "form": "text",
    "sublayer": "text",
    "layer": "int",
    "count": "int",
    "position": "int",
    "point": "int",
    "kl": "float",
    "gap": "float",
    "token": "int",
    "text": "text",
    "not_numbers": "bool",
    "floor": "float",
    "forms": "int",
    "latest": "int",
    "seconds": "float",
}
"""Columns, by names as in `blame`, in the order of a row's cells.

`form` is what was read:

- `baseline`, `pruned`: p itself, and the lane as it is;
- `given_back`, `alone`: the part in `sublayer` and `layer`, given back or pruned by itself;
- `cumulative`: that part given back too, which makes `count` parts;
- `caches`: the lane's last token over caches that are the baseline's from `position` on;
- `last`, `every`: the lane with the baseline's residual stream put in at `point` of its depth, at
  the last position or at all: 0 before attention 0, then after each sublayer.

`floor`, `forms`, `latest` and `seconds` are of the whole blame, the same in all of its rows.
"""


def rows(trace: Trace) -> Iterator[list[Cell]]:
    """Rows of the open branch's steps, with cells in the order of `COLUMNS`."""
    for step in trace.steps:
        for blame in step.blames:
            whole: dict[str, Cell] = {
                "step": step.step,
                "lane": blame.lane,
                "name": trace.lane_names[blame.lane],
                "tokens": blame.tokens,
                "floor": blame.floor,
                "forms": blame.cumulative.forms,
                "latest": None if blame.in_text is None else blame.in_text.latest,
                "seconds": blame.seconds,
            }
            for form, cells in _forms(blame):
                row = {**whole, **cells, **msgspec.structs.asdict(form)}
                yield [row.get(column) for column in COLUMNS]


def _forms(blame: Blame) -> Iterator[tuple[NextToken, dict[str, Cell]]]:
    """Forms that were read, each with the cells that name it."""
    yield blame.baseline, {"form": "baseline"}
    yield blame.pruned, {"form": "pruned"}
    for part in blame.parts:
        yield part.given_back, {"form": "given_back", **_part(part.part)}
        yield part.alone, {"form": "alone", **_part(part.part)}
    given_back = zip(blame.cumulative.parts, blame.cumulative.after, strict=True)
    for count, (part, after) in enumerate(given_back, start=1):
        yield after, {"form": "cumulative", "count": count, **_part(part)}
    if blame.in_text is not None:
        for tried in blame.in_text.tried:
            yield tried.next, {"form": "caches", "position": tried.position}
    if blame.in_depth is not None:
        for form in ("last", "every"):
            for point, patched in enumerate(getattr(blame.in_depth, form)):
                if patched is not None:
                    yield patched, {"form": form, "point": point}


def _part(part: Part) -> dict[str, Cell]:
    return {"sublayer": part.sublayer, "layer": part.layer}
