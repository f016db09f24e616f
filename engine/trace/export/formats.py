"""Export formats by name, and those that need no module: CSV and JSON."""

import csv
import io
import json
from collections.abc import Callable

import msgspec

from ..trace import Trace
from .html import to_html
from .markdown import to_markdown
from .parquet import to_parquet
from .table import COLUMNS, Cell, rows


def to_csv(trace: Trace) -> str:
    """CSV with the columns of `table`, empty where a number is missing or not finite.

    Texts, names and lists are JSON: quoted, so that a spreadsheet takes none for a formula, and
    with control characters escaped.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows(trace):
        writer.writerow([_cell(value) for value in row])
    return out.getvalue()


def _cell(value: Cell) -> object:
    if isinstance(value, str | list):
        return json.dumps(value)
    if isinstance(value, bool):
        return int(value)
    return value


def to_json(trace: Trace) -> str:
    """JSON object of the header and the steps of the open branch."""
    encoded = msgspec.json.encode({"header": trace.header, "steps": trace.steps})
    return msgspec.json.format(encoded, indent=1).decode()


FORMATS: dict[str, Callable[[Trace], str | bytes]] = {
    "csv": to_csv,
    "parquet": to_parquet,
    "json": to_json,
    "md": to_markdown,
    "html": to_html,
}
