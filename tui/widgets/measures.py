"""Table of the measures at one step."""

from typing import NamedTuple

from ...engine.trace.divergence import NOT_NUMBERS
from ...engine.trace.figures import difference, distance, nats
from ...engine.trace.records import Drift, one_minus

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
    spaces = [distance(d.distance(space)) for space in "hzp"]
    estimates = [distance(estimate) for estimate in (d.est_h, d.est_z, d.est_p)]
    centred = distance(one_minus(d.cos_z_centred))
    return [
        Row("".ljust(LABEL) + "".join(space.rjust(SPACE) for space in "hzp"), "", HEAD, ""),
        _row("1 − cos", spaces, nats(d.kl)),
        _row("  estimate", estimates, nats(d.est_kl)),
        _row("  centred z", ["", centred], nats(d.kl_rev), "KL(q‖p)"),
        _row("parallel", [distance(d.par_h), distance(d.par_z)], difference(d.dp), "Δp"),
        _row(
            "orthogonal",
            [distance(d.orth_h), distance(d.orth_z)],
            "same" if d.top1 else "differs",
            "top-1",
        ),
    ]


def _row(label: str, spaces: list[str], figure: str, name: str = "") -> Row:
    figures = "".join(space.rjust(SPACE) for space in spaces)
    return Row(label.ljust(LABEL), figures, name.rjust(SPACE if name else 0), figure.rjust(NATS))
