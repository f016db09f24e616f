"""Export formats by name, and those that need no module: CSV and JSON."""

from collections.abc import Callable
from typing import Literal

import msgspec

from ..trace import Trace
from . import blame_table, table
from .csv_text import csv_text
from .html import to_html
from .markdown import to_markdown
from .parquet import parquet_bytes

Rows = Literal["steps", "blames"]
"""What a row of CSV and Parquet is: a step in a lane, or a form of a lane read for a blame."""


def to_csv(trace: Trace, rows: Rows = "steps") -> str:
    """CSV with the columns of `table` or `blame_table`, as `csv_text` writes them."""
    module = table if rows == "steps" else blame_table
    return csv_text(module.COLUMNS, module.rows(trace))


def to_parquet(trace: Trace, rows: Rows = "steps") -> bytes:
    """Parquet with the columns of `table` or `blame_table`, as `parquet_bytes` writes them.

    Raises `UserError` without pyarrow.
    """
    module = table if rows == "steps" else blame_table
    return parquet_bytes(module.COLUMNS, module.rows(trace), trace.header)


def to_json(trace: Trace) -> str:
    """JSON object of the header and the steps of the open branch."""
    encoded = msgspec.json.encode({"header": trace.header, "steps": trace.steps})
    return msgspec.json.format(encoded, indent=1).decode()


ROW_FORMATS: dict[str, Callable[[Trace, Rows], str | bytes]] = {
    "csv": to_csv,
    "parquet": to_parquet,
}
"""Formats of rows, by name."""

FORMATS: dict[str, Callable[[Trace], str | bytes]] = {
    "csv": to_csv,
    "parquet": to_parquet,
    "json": to_json,
    "md": to_markdown,
    "html": to_html,
}
