"""Files of a budget: a row per number dropped as CSV or Parquet, and all of it as JSON."""

from collections.abc import Callable, Iterator

import msgspec

from ...options import Options
from ..analysis.budget import Levels, Measured, NumberFigures
from .csv_text import csv_text
from .parquet import parquet_bytes
from .table import Cell, Kind

COLUMNS: dict[str, Kind] = {
    "kind": "text",
    "by": "text",
    "number": "int",
    "prompts": "int",
    "mean_local_kl": "float",
    "tokens": "int",
    "not_comparable": "int",
    "median_first_divergence": "int",
    "tie": "bool",
    "never_divergent": "int",
    "collapsed": "int",
    "median_collapse": "int",
}
"""Columns in the order of a row's cells, as in `NumberFigures`: KL(p ‖ q) in nats, p the
baseline's; steps are None where there is none."""


class BudgetFile(msgspec.Struct, frozen=True, kw_only=True):
    """All that a budget found."""

    kind: str
    """What was dropped: attn, mlp, joint or block."""
    by: str
    """What chose which: similarity, kl or kl:FILE."""
    model: str
    options: Options
    prompts: list[str]
    levels: Levels
    verdicts: list[str]
    notes: list[str]
    numbers: list[NumberFigures]
    measured: list[Measured]
    """Figures of each number after each prompt."""


def rows(budget: BudgetFile) -> Iterator[list[Cell]]:
    for one in budget.numbers:
        divergence = one.divergence, one.tie, one.never
        collapse = one.collapsed, one.collapse
        means = one.kl, one.tokens, one.not_comparable
        asked = budget.kind, budget.by
        yield [*asked, one.number, one.prompts, *means, *divergence, *collapse]


def to_csv(budget: BudgetFile) -> str:
    """CSV with the columns of `COLUMNS`."""
    return csv_text(COLUMNS, rows(budget))


def to_parquet(budget: BudgetFile) -> bytes:
    """Parquet with the columns of `COLUMNS`; the rest is in the file's metadata.

    Raises `UserError` without pyarrow.
    """
    return parquet_bytes(COLUMNS, rows(budget), budget)


def to_json(budget: BudgetFile) -> str:
    """JSON object of a `BudgetFile`."""
    return msgspec.json.format(msgspec.json.encode(budget), indent=1).decode()


FORMATS: dict[str, Callable[[BudgetFile], str | bytes]] = {
    "csv": to_csv,
    "parquet": to_parquet,
    "json": to_json,
}
