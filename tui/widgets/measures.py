"""Table of the measures at one step."""

from typing import NamedTuple

from ...engine.trace.divergence import NOT_NUMBERS
from ...engine.trace.records import Drift

LABEL = 13
SPACE = 9
NATS = 13
CELLS = LABEL + 3 * SPACE + NATS
LINES = 6
HEAD = "KL(p‖q)".rjust(NATS)


class Row(NamedTuple):
    """Line of the table: a label and a figure per space, then one named figure."""

    label: str
    figures: str
    name: str
    figure: str


def table(drift: Drift | None) -> list[Row]:
    if drift is None:
        return [Row("not measured: one of the two lanes has ended", "", "", "")]
    if drift.not_comparable:
        return [Row(f"not measured: a lane's logits are {NOT_NUMBERS}", "", "", "")]
    d = drift
    return [
        Row("".ljust(LABEL) + "".join(space.rjust(SPACE) for space in "hzp"), "", HEAD, ""),
        _row("1 − cos", [_distance(d.cos_h), _distance(d.cos_z), _distance(d.cos_p)], nats(d.kl)),
        _row("  estimate", [_cell(d.est_h), _cell(d.est_z), _cell(d.est_p)], nats(d.est_kl)),
        _row("  centred z", ["", _distance(d.cos_z_centred)], nats(d.kl_rev), "KL(q‖p)"),
        _row("parallel", [_cell(d.par_h), _cell(d.par_z)], _cell(d.dp), "Δp"),
        _row(
            "orthogonal",
            [_cell(d.orth_h), _cell(d.orth_z)],
            "same" if d.top1 else "differs",
            "top-1",
        ),
    ]


def nats(value: float | None) -> str:
    return "n/a" if value is None else f"{value:#.3g}".rstrip(".") + " nats"


def _row(label: str, spaces: list[str], figure: str, name: str = "") -> Row:
    figures = "".join(space.rjust(SPACE) for space in spaces)
    return Row(label.ljust(LABEL), figures, name.rjust(SPACE if name else 0), figure.rjust(NATS))


def _distance(cosine: float | None) -> str:
    return _cell(None if cosine is None else 1 - cosine)


def _cell(value: float | None) -> str:
    if value is None:
        return "n/a"
    # An estimate has no upper bound.
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.4g}"
