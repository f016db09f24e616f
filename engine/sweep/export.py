"""Export formats of a sweep's folder by name."""

from collections.abc import Callable

import msgspec

from ..results.records import Header
from ..trace.export.csv_text import csv_text
from ..trace.export.parquet import parquet_bytes
from .folder import SweepFolder
from .html import to_html
from .table import COLUMNS, rows


class Headers(msgspec.Struct):
    """Headers of the evaluations, by the name of the file."""

    files: dict[str, Header]


def to_csv(folder: SweepFolder) -> str:
    """CSV with the columns of `table`."""
    return csv_text(COLUMNS, rows(folder))


def to_parquet(folder: SweepFolder) -> bytes:
    """Parquet with the columns of `table`. Raises `UserError` without pyarrow."""
    headers = {path.name: results.header for path, results in folder.evaluations.items()}
    return parquet_bytes(COLUMNS, rows(folder), Headers(headers))


FORMATS: dict[str, Callable[[SweepFolder], str | bytes]] = {
    "csv": to_csv,
    "parquet": to_parquet,
    "html": to_html,
}
