"""`prunetui rank`: how much each sublayer and layer changes the residual stream."""

import json
import math
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...engine.options import Options
from ...engine.output_files import write_new
from ...engine.trace.figures import cosine
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


def rank(options: Options, output: Path | None) -> None:
    """Measure the similarities, write them as JSON if `output` is given, and print a table."""
    with loading_bar() as (_, report):
        from ...engine.variants.builder import open_builder

        builder = open_builder(options, report)
        similarity = builder.baseline_similarity()
        tokens = builder.calibration.tokens
    columns = {"attn": similarity.attention, "mlp": similarity.mlp, "block": similarity.runs[0]}
    if output is not None:
        content = {"model": options.model, "tokens": tokens, **columns, "runs": similarity.runs}
        write_new(output, json.dumps(content, indent=1) + "\n")
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("layer", justify="right")
    for name in columns:
        table.add_column(name, justify="right")
        table.add_column("place", justify="right")
        table.add_column("")
    places = {
        name: {layer: place for place, layer in enumerate(_most_similar_first(values), start=1)}
        for name, values in columns.items()
    }
    for layer in range(len(similarity.attention)):
        row = [str(layer)]
        for name, values in columns.items():
            row += [cosine(values[layer]), str(places[name][layer]), _bar(values, layer)]
        table.add_row(*map(Text, row))
    console = Console()
    # Too narrow a terminal wraps the lines; rich would cut figures, which makes them wrong.
    needed = console.measure(
        table, options=console.options.update(max_width=MAX_TABLE_CELLS)
    ).maximum
    Console(width=max(console.width, needed)).print(table)
    console.print(Text(NOTE.format(tokens=tokens), style="dim"))


def _most_similar_first(values: list[float]) -> list[int]:
    return sorted(range(len(values)), key=lambda layer: -values[layer])


def _bar(values: list[float], layer: int) -> str:
    """Bar of eighths of a cell, at least one, for how much a layer changes its input."""
    changes = [math.log(max(1 - value, 1e-9)) for value in values]
    least, most = min(changes), max(changes)
    share = (changes[layer] - least) / (most - least) if most > least else 1.0
    eighths = max(1, round(share * BAR_CELLS * 8))
    return ("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()).ljust(BAR_CELLS)
