"""Tables as CSV."""

import csv
import io
import json
from collections.abc import Iterable

from .table import Cell


def csv_text(columns: Iterable[str], rows: Iterable[Iterable[Cell]]) -> str:
    """CSV of a table, empty where a number is missing or not finite.

    Texts, names and lists are JSON: quoted, so that a spreadsheet takes none for a formula, and
    with control characters escaped.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return out.getvalue()


def _cell(value: Cell) -> object:
    if isinstance(value, str | list):
        return json.dumps(value)
    if isinstance(value, bool):
        return int(value)
    return value
