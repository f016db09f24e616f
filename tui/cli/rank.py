"""`prunetui rank`: how much each sublayer and layer matters, by similarity and by KL."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...engine.options import Options
from ...engine.output_files import write_new
from ...engine.trace.figures import cosine
from ...engine.trace.figures import kl as kl_figure
from .progress import loading_bar

BAR_CELLS = 7
MAX_TABLE_CELLS = 200
"""Width that the table never has."""
NOTE = (
    "Mean cosine similarity of the residual stream before and after the sublayer, or the whole "
    "layer, over {tokens} calibration tokens; a bar is 1 − that on a log scale, from the least to "
    "the most of its column. The place is the order in which drop:attn, drop:mlp and drop:block "
    "take them."
)
KL_NOTE = (
    "cos is the mean cosine similarity of the residual stream before and after the sublayer, or "
    "the whole layer; KL is the mean KL(p ‖ q) in nats, p the model's next-token distribution and "
    "q that with this alone dropped, n/a where it is not finite; both over {tokens} calibration "
    "tokens. After each stands its place, the order in which drop:attn=…, drop:mlp=… and "
    "drop:block=… take them, and with by=kl; Δ is the second place less the first, blank where "
    "both agree."
)
By = Literal["similarity", "kl"]


def rank(options: Options, output: Path | None, by: By) -> None:
    """Measure the similarities, and KL if asked, write them as JSON if `output` is given, and print
    a table."""
    with loading_bar() as (_, report):
        from ...engine.variants.builder import open_builder

        builder = open_builder(options, report)
        similarity = builder.baseline_similarity()
        kl = builder.baseline_kl() if by == "kl" else None
        tokens = builder.calibration.tokens
    columns = {"attn": similarity.attention, "mlp": similarity.mlp, "block": similarity.runs[0]}
    if output is not None:
        content = {"model": options.model, "tokens": tokens, **columns, "runs": similarity.runs}
        content |= {"kl": kl} if kl else {}
        write_new(output, json.dumps(content, indent=1) + "\n")
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("layer", justify="right")
    cells = _similarity_cells(table, columns) if kl is None else _kl_cells(table, columns, kl)
    for layer, row in enumerate(zip(*cells, strict=True)):
        table.add_row(*map(Text, (str(layer), *row)))
    console = Console()
    # Too narrow a terminal wraps the lines; rich would cut figures, which makes them wrong.
    needed = console.measure(
        table, options=console.options.update(max_width=MAX_TABLE_CELLS)
    ).maximum
    Console(width=max(console.width, needed)).print(table)
    note = (NOTE if kl is None else KL_NOTE).format(tokens=tokens)
    console.print(Text(note, style="dim"))


def _similarity_cells(table: Table, columns: Mapping[str, Sequence[float]]) -> list[list[str]]:
    """Add the columns to the table; return their cells by layer."""
    cells: list[list[str]] = []
    for name, values in columns.items():
        table.add_column(name, justify="right")
        table.add_column("place", justify="right")
        table.add_column("")
        cells += [
            [*map(cosine, values)],
            [*map(str, _places([-value for value in values]))],
            [_bar(values, layer) for layer in range(len(values))],
        ]
    return cells


def _kl_cells(
    table: Table,
    columns: Mapping[str, Sequence[float]],
    kl: Mapping[Any, Sequence[float | None]],
) -> list[list[str]]:
    """Add the columns of both rankings to the table; return their cells by layer."""
    cells: list[list[str]] = []
    for name, values in columns.items():
        for heading in (f"{name} cos", "", "KL", "", "Δ"):
            table.add_column(heading, justify="right")
        by_cosine = _places([-value for value in values])
        by_kl = _places([math.inf if value is None else value for value in kl[name]])
        changes = [k - c for c, k in zip(by_cosine, by_kl, strict=True)]
        cells += [
            [*map(cosine, values)],
            [*map(str, by_cosine)],
            [*map(kl_figure, kl[name])],
            [*map(str, by_kl)],
            [f"{change:+d}" if change else "" for change in changes],
        ]
    return cells


def _places(values: Sequence[float]) -> list[int]:
    """Each value's place in ascending order, from 1; equal ones in their order."""
    order = sorted(range(len(values)), key=lambda layer: values[layer])
    return [order.index(layer) + 1 for layer in range(len(values))]


def _bar(values: Sequence[float], layer: int) -> str:
    """Bar of eighths of a cell, at least one, for how much a layer changes its input."""
    changes = [math.log(max(1 - value, 1e-9)) for value in values]
    least, most = min(changes), max(changes)
    share = (changes[layer] - least) / (most - least) if most > least else 1.0
    eighths = max(1, round(share * BAR_CELLS * 8))
    return ("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()).ljust(BAR_CELLS)
