"""Merged table of a folder: the results tables of its evaluations, one below the other."""

from collections.abc import Iterator

from ..results.export import table_rows
from ..trace.export.table import Cell, Kind
from .families import calibration_seed, find_places, lane_recipes
from .folder import SweepFolder

_MODEL: dict[str, Kind] = dict.fromkeys(("model", "fingerprint", "dtype", "device"), "text")
_SETTINGS: dict[str, Kind] = {
    "limit": "int",
    "batch_size": "int",
    "apply_chat_template": "bool",
    "seed": "int",
    "pooling": "text",
    "instruction": "text",
    "max_tokens": "int",
}
_OPTIONS: dict[str, Kind] = {
    "max_new_tokens": "int",
    "calibration": "text",
    "calibration_samples": "int",
    "calibration_length": "int",
}

COLUMNS: dict[str, Kind] = {
    "file": "text",
    **_MODEL,
    **_SETTINGS,
    **_OPTIONS,
    "calibration_seed": "int",
    "family": "text",
    "number": "float",
    "dropped": "int",
    **table_rows.COLUMNS,
}
"""Columns in the order of a row's cells: what was asked of which model, and those of `table_rows`.

`family` is the recipe without its number, and `number` that number: both None where it has none.
`dropped` is the number of sublayers. `calibration_seed` is None where the recipe looks at no
calibration text.
"""


def rows(folder: SweepFolder) -> Iterator[list[Cell]]:
    """Rows of all complete tasks, with cells in the order of `COLUMNS`."""
    places = find_places(lane_recipes(folder.evaluations.values()))
    complete, lane = (list(table_rows.COLUMNS).index(name) for name in ("complete", "lane"))
    for path, results in folder.evaluations.items():
        header = results.header
        asked: list[Cell] = [
            path.name,
            *(getattr(header.model, "name" if name == "model" else name) for name in _MODEL),
            *(getattr(header.settings, name) for name in _SETTINGS),
            *(getattr(header.options, name) for name in _OPTIONS),
        ]
        for row in table_rows.rows(results):
            if not row[complete]:
                continue
            number = row[lane]
            assert isinstance(number, int)
            described = header.lanes[number]
            place = places.get(described.recipe or "")
            yield [
                *asked,
                calibration_seed(results, number),
                place.family if place else None,
                place.number if place else None,
                len(described.dropped_attention) + len(described.dropped_mlp),
                *row,
            ]
