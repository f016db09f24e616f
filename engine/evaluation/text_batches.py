"""Texts laid out in rows and batches, so that what texts share is read once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor

from .requests import Tokens

WORTH = 8
"""A prefix is read once for all texts where that saves at least this part of all positions."""


@dataclass(frozen=True)
class Text:
    """Tokens to read, and the positions whose outputs are needed, at least one, ascending."""

    tokens: Tokens
    needed: Sequence[int]


@dataclass(frozen=True)
class Batch:
    """Rows of texts that are read together after a prefix.

    A row is a stem and tails: texts that begin alike, each of which reads the stem and its own
    tail. Most rows are a stem alone.
    """

    prefix: int
    """Positions before these."""
    tokens: Tensor
    """int64 [rows, columns], padded with 0 on the right."""
    positions: Tensor
    """Positions in the texts, int64 [rows, columns]; those of padding are counted on."""
    tails: Tensor | None
    """Number of the tail, int64 [rows, columns], 0 for the stem; None where no row has two."""
    rows: Tensor
    """Rows of the needed positions, int64 [needed]."""
    columns: Tensor
    """Columns of the needed positions, int64 [needed]."""
    index: dict[tuple[int, int], int]
    """Index into the needed positions, by the number of the text and the position in it."""

    @property
    def texts(self) -> set[int]:
        """Numbers of the texts."""
        return {text for text, _ in self.index}


@dataclass(frozen=True)
class Plan:
    """Batches of texts, and the tokens that all of them begin with and that are read before."""

    prefix: Tokens
    batches: list[Batch]


def plan_texts(texts: Sequence[Text], batch_size: int, *, shared: bool) -> Plan:
    """Lay out texts, the longest first, in batches of at most `batch_size` rows.

    With `shared`, the tokens that all texts begin with are left to be read once, and texts share
    a row where that saves more than half of each one that joins it. A batch has no more positions
    than so many of its longest texts. The plan depends on the arguments alone.
    """
    order = sorted(range(len(texts)), key=lambda number: texts[number].tokens)
    length = _prefix_length(texts, order) if shared else 0
    rows = _make_rows(texts, order, length, tails=shared)
    positions = length + sum(row.length for row in rows)
    if length and length * (len(rows) - 1) * WORTH < positions:
        length = 0
        rows = _make_rows(texts, order, length, tails=shared)
    # The sort is stable: rows of a length stay in the order of their tokens.
    rows.sort(key=lambda row: -row.length)
    batches = []
    while rows:
        count = max(1, batch_size * rows[0].longest // rows[0].length)
        batches.append(_make_batch(texts, rows[:count], length))
        del rows[:count]
    return Plan(texts[order[0]].tokens[:length] if order else (), batches)


def plan_alone(texts: Sequence[Text]) -> Plan:
    """Read each text by itself."""
    rows = [_Row([(number, text.tokens)]) for number, text in enumerate(texts)]
    return Plan((), [_make_batch(texts, [row], 0) for row in rows])


def prefix_batch(tokens: Tokens) -> Batch:
    """A row of tokens, of which no outputs are needed."""
    row, none = torch.tensor([tokens]), torch.empty(0, dtype=torch.int64)
    return Batch(0, row, torch.arange(len(tokens))[None], None, none, none, {})


@dataclass
class _Row:
    """Texts that begin alike, in the order of their tokens, without the prefix."""

    texts: list[tuple[int, Tokens]]
    """Numbers of the texts and their tokens."""
    stem: int = field(init=False)
    """Number of tokens that all begin with."""
    tails: list[Tokens] = field(init=False)
    """What follows the stem, once for texts of which one begins with the other."""

    def __post_init__(self) -> None:
        self.stem = _shared_length(self.texts[0][1], self.texts[-1][1])
        rests = [tokens[self.stem :] for _, tokens in self.texts]
        self.tails = [
            rest
            for rest, after in zip(rests, [*rests[1:], ()], strict=True)
            if after[: len(rest)] != rest
        ]
        if len(self.tails) == 1:
            self.stem, self.tails = self.stem + len(self.tails[0]), []

    @property
    def length(self) -> int:
        return self.stem + sum(map(len, self.tails))

    @property
    def longest(self) -> int:
        return max(len(tokens) for _, tokens in self.texts)

    def tail_column(self, tokens: Tokens) -> int:
        """Column at which a text goes on after the stem."""
        rest, column = tokens[self.stem :], self.stem
        for tail in self.tails:
            if tail[: len(rest)] == rest:
                return column
            column += len(tail)
        return self.stem


def _make_rows(
    texts: Sequence[Text], order: Iterable[int], prefix: int, *, tails: bool
) -> list[_Row]:
    limit = 2 * max((len(text.tokens) - prefix for text in texts), default=0)
    rows: list[_Row] = []
    for number in order:
        tokens = texts[number].tokens[prefix:]
        row = _Row([(number, tokens)])
        if rows:
            before = rows[-1]
            both = _Row([*before.texts, *row.texts])
            saved = before.length + row.length - both.length
            joins = not both.tails or (tails and 2 * saved > row.length and both.length <= limit)
            if joins and saved > 0:
                rows[-1] = both
                continue
        rows.append(row)
    return rows


def _make_batch(texts: Sequence[Text], rows: Sequence[_Row], prefix: int) -> Batch:
    width = max(row.length for row in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.int64)
    positions = torch.arange(prefix, prefix + width).repeat(len(rows), 1)
    tails = torch.zeros(len(rows), width, dtype=torch.int64)
    places: dict[tuple[int, int], int] = {}
    index: dict[tuple[int, int], int] = {}
    for number, row in enumerate(rows):
        # The last text is as long as the stem, whether there are tails or not.
        _, last = row.texts[-1]
        tokens[number, : row.length] = torch.tensor([*last[: row.stem], *chain(*row.tails)])
        column = row.stem
        for tail_number, tail in enumerate(row.tails, start=1):
            columns = slice(column, column + len(tail))
            tails[number, columns] = tail_number
            positions[number, columns] -= column - row.stem
            column += len(tail)
        for text, rest in row.texts:
            moved = row.tail_column(rest) - row.stem
            for position in texts[text].needed:
                column = position - prefix
                place = number, column + moved if column >= row.stem else column
                index[text, position] = places.setdefault(place, len(places))
    needed_rows, needed_columns = torch.tensor([*places]).T.contiguous()
    has_tails = any(row.tails for row in rows)
    return Batch(
        *(prefix, tokens, positions, tails if has_tails else None),
        *(needed_rows, needed_columns, index),
    )


def _prefix_length(texts: Sequence[Text], order: Sequence[int]) -> int:
    """Number of tokens that all texts begin with, before any position that is needed."""
    if not order:
        return 0
    shared = _shared_length(texts[order[0]].tokens, texts[order[-1]].tokens)
    return min(shared, *(text.needed[0] for text in texts))


def _shared_length(x: Tokens, y: Tokens) -> int:
    """Number of tokens that both begin with."""
    length = min(len(x), len(y))
    return next((i for i in range(length) if x[i] != y[i]), length)
