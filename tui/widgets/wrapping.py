"""Tokens wrapped into lines of cells; one more token touches only the last line."""

from typing import NamedTuple

from rich.cells import cell_len, chop_cells

from ...engine.trace.printable import visible


class Piece(NamedTuple):
    """Token's text, or a part of it, on one line."""

    first: int
    """First of the steps `first` to `last` that the piece shows: tokens that add no text (inside a
    UTF-8 character) join the next that does."""
    last: int
    text: str


class Wrapped:
    """Text in lines of at most `width` cells, 2 at least, broken before a space if there is one."""

    def __init__(self, width: int) -> None:
        # A wide character has two, and no line can be narrower than a character.
        self.width = max(2, width)
        self.lines: list[list[Piece]] = [[]]
        self.line_of: list[int] = []
        """Line on which each step's text begins; it is final once the next line is begun,
        as a word that does not fit moves down."""
        self._cells = 0
        self._closed = False
        self._pending: int | None = None

    def append(self, step: int, text: str) -> None:
        text = visible(text)
        if not text:
            if self._pending is None:
                self._pending = step
            self.line_of.append(len(self.lines) - 1)
            return
        first = step if self._pending is None else self._pending
        self._pending = None
        self.line_of.append(-1)
        before = len(self.lines)
        for part in _paragraphs(text):
            self._add(Piece(first, step, part))
        self._locate(before - 1)

    def _add(self, piece: Piece) -> None:
        # A newline closes its line, and more of them stay on it: blank lines are dear.
        if self._closed and not piece.text.startswith("⏎"):
            self._break([])
        self._closed = False
        cells = cell_len(piece.text)
        if self._cells + cells > self.width:
            self._break(self._word_so_far(piece))
            if not self._cells:
                piece = piece._replace(text=_unindented(piece.text))
                cells = cell_len(piece.text)
        if self._cells + cells > self.width:
            *full, rest = chop_cells(piece.text, self.width)
            if self._cells:
                self._break([])
            for text in full:
                self.lines[-1].append(piece._replace(text=text))
                self._break([])
            piece = piece._replace(text=rest)
            cells = cell_len(rest)
        self.lines[-1].append(piece)
        self._cells += cells
        self._closed = piece.text.endswith("⏎")

    def _word_so_far(self, piece: Piece) -> list[Piece]:
        """Pieces at the end of the last line that are one word with `piece`."""
        if piece.text[0] in " ⏎":
            return []
        line = self.lines[-1]
        for start in range(len(line) - 1, 0, -1):
            if line[start].text.startswith(" "):
                # A space that is a token of its own stays at the end of its line.
                return line[start + (line[start].text == " ") :]
        return []

    def _break(self, moved: list[Piece]) -> None:
        """Begin a line with the pieces `moved` from the end of the last one."""
        if moved:
            del self.lines[-1][-len(moved) :]
            moved[0] = moved[0]._replace(text=_unindented(moved[0].text))
        if self.lines[-1]:
            self.lines.append([])
        self.lines[-1] += moved
        self._cells = sum(cell_len(piece.text) for piece in moved)

    def _locate(self, line: int) -> None:
        """Update `line_of` for the steps that begin on `line` or below it."""
        for number in range(len(self.lines) - 1, line - 1, -1):
            for piece in self.lines[number]:
                for step in range(piece.first, piece.last + 1):
                    if not 0 <= self.line_of[step] < line:
                        self.line_of[step] = number


def _unindented(text: str) -> str:
    """Text without the leading space that a line break replaces."""
    return text[1:] if text.startswith(" ") and len(text) > 1 else text


def _paragraphs(text: str) -> list[str]:
    """Split text after each run of newlines."""
    parts: list[str] = []
    for character in text:
        if parts and (character == "⏎" or not parts[-1].endswith("⏎")):
            parts[-1] += character
        else:
            parts.append(character)
    return parts


def wrap(text: str, width: int) -> list[str]:
    """Lines of a text in words, each of at most `width` cells."""
    wrapped = Wrapped(width)
    for number, word in enumerate(text.split(" ")):
        wrapped.append(number, f" {word}" if number else word)
    return ["".join(piece.text for piece in pieces) for pieces in wrapped.lines]
