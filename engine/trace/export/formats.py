"""Export formats by name, and those that need no module: CSV and JSON."""

from collections.abc import Callable

import msgspec

from ..trace import Trace
from .csv_text import csv_text
from .html import to_html
from .markdown import to_markdown
from .parquet import to_parquet
from .table import COLUMNS, rows


def to_csv(trace: Trace) -> str:
    """CSV with the columns of `table`, as `csv_text` writes them."""
    return csv_text(COLUMNS, rows(trace))


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
