"""Export formats of an evaluation by name; lm-eval's files, which are a directory, apart."""

from collections.abc import Callable
from typing import Literal

from ...trace.export.csv_text import csv_text
from ...trace.export.parquet import parquet_bytes
from ..results import Results
from . import item_rows, table_rows
from .html import to_html
from .markdown import to_markdown

Rows = Literal["items", "table"]
"""What a row of CSV and Parquet is: an item in a lane, or a task in a lane by one metric."""


def to_csv(results: Results, rows: Rows = "items") -> str:
    """CSV with the columns of `item_rows` or `table_rows`."""
    if rows == "table":
        return csv_text(table_rows.COLUMNS, table_rows.rows(results))
    return csv_text(item_rows.columns(results.header), item_rows.rows(results))


def to_parquet(results: Results, rows: Rows = "items") -> bytes:
    """Parquet with the columns of `item_rows` or `table_rows`.

    Raises `UserError` without pyarrow.
    """
    if rows == "table":
        return parquet_bytes(table_rows.COLUMNS, table_rows.rows(results), results.header)
    columns = item_rows.columns(results.header)
    return parquet_bytes(columns, item_rows.rows(results), results.header)


ROW_FORMATS: dict[str, Callable[[Results, Rows], str | bytes]] = {
    "csv": to_csv,
    "parquet": to_parquet,
}
"""Formats of rows, by name."""

REPORTS: dict[str, Callable[[Results], str | bytes]] = {
    "md": to_markdown,
    "html": to_html,
}
"""Reports, by name."""
