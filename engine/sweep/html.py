"""A sweep as one HTML page without scripts, other files or a server."""

import itertools
from collections.abc import Iterator, Sequence

from ..trace import figures
from ..trace.export.html_page import escaped, page, table
from .axes import TITLES
from .curves import KIND_NAMES, Curves, find_curves
from .families import calibration_seed
from .folder import SweepFolder
from .html_chart import family_chart, legend
from .samples import MEASURES, Study, find_studies
from .verdicts import RULE, sentences

CHART_NOTE = (
    "Vertical lines are 95 % intervals over items: of a score the baseline's and the paired "
    "bootstrap interval of the difference, of a drift ± 1.96 standard errors of its mean. Thin "
    "lines are calibration seeds, over which every item is averaged. Tasks of a kind are taken "
    "together, a group as one."
)
HEADS = ("number", "tasks", "items", "score", "95 % of Δ", "KL(p‖q) nats", "1 − cos h", "z", "p")
LISTS = ("recipe", "calibration seed", "attention dropped in", "MLP dropped in", "weights zero")


def to_html(folder: SweepFolder) -> str:
    """HTML with the sentences, curves and numbers of a folder, its drop lists and failures."""
    studies = find_studies(folder.evaluations.values())
    names = dict.fromkeys(results.header.model.name for results in folder.evaluations.values())
    title = f"Sweep of {', '.join(names) or 'nothing'}"
    body = [f"<h1>{escaped(title)}</h1>"]
    for study in studies:
        body += _study(study)
    body += _drop_lists(folder)
    if folder.failures:
        failures = [[escaped(f.job), escaped(f.error)] for f in folder.failures.values()]
        body += ["<h2>Failed</h2>", table(("job", "error"), failures, "left")]
    return page(title, body)


def _study(study: Study) -> Iterator[str]:
    curves = find_curves(study)
    yield f"<h2>{escaped(study.title)}</h2>"
    said = sentences(curves)
    yield from (f"<p><b>{escaped(sentence)}</b></p>" for sentence in said)
    if said:
        yield f'<p class="note">{escaped(RULE)}</p>'
    yield from (f"<p><b>Note:</b> {escaped(note)}</p>" for note in study.notes)
    for name, group in itertools.groupby(curves, lambda one: one.family):
        family = [*group]
        yield f"<h3>{escaped(name)}</h3>"
        charts = [chart for measure in TITLES if (chart := family_chart(family, measure))]
        figured = "".join(f"<figure>{chart}</figure>" for chart in charts)
        yield f'<div class="charts">{figured}</div>'
        yield f'<p class="note">{legend(family)}. {escaped(CHART_NOTE)}</p>'
        yield table(HEADS, [row for one in family for row in _rows(one)], "")


def _rows(curves: Curves) -> Iterator[list[str]]:
    """Rows of a family's numbers, with cells in the order of `HEADS`."""
    scores = {point.number: point for point in curves.score}
    drift = {measure: {p.number: p for p in curves.drift[measure]} for measure in MEASURES}
    numbers = sorted({*scores, *(number for points in drift.values() for number in points)})
    for number in numbers:
        own = [points.get(number) for points in drift.values()]
        point = scores.get(number)
        items = next((p.items for p in (point, *own) if p), 0)
        kl, *cosines = own
        yield [
            f"{number:g}",
            KIND_NAMES[curves.kind],
            str(items),
            figures.score(point.value) if point else "–",
            figures.interval(point.delta) if point and point.delta else "–",
            figures.kl(kl.value) if kl else "–",
            *(figures.distance(p.value) if p else "–" for p in cosines),
        ]


def _drop_lists(folder: SweepFolder) -> Sequence[str]:
    """What every recipe dropped, by its calibration seed."""
    rows: dict[tuple[str, ...], None] = {}
    for results in folder.evaluations.values():
        for number, lane in enumerate(results.header.lanes):
            if lane.recipe is not None:
                seed = calibration_seed(results, number)
                lists = (lane.dropped_attention, lane.dropped_mlp)
                cells = (lane.recipe, "–" if seed is None else str(seed))
                written = (", ".join(map(str, layers)) or "–" for layers in lists)
                zero = "–" if lane.sparsity is None else figures.share(lane.sparsity)
                rows[(*cells, *written, zero)] = None
    if not rows:
        return []
    return ["<h2>Lanes</h2>", table(LISTS, [[*map(escaped, row)] for row in rows], "left")]
