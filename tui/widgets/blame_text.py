"""Text that a blamed lane has read, with the positions whose caches must be the baseline's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.style import Style

from ...engine.trace.blame import WhereInText
from .panel import Line, Panel
from .wrapping import Piece, Wrapped

FROM_HERE = "»"
"""Mark of the latest position from which on the baseline's caches bring its token back."""


@dataclass(frozen=True)
class ReadText:
    """Tokens that were read before a step."""

    prompt: str
    """The prompt as it was typed: its tokens have no texts of their own in a trace."""
    prompt_count: int
    """Number of the prompt's tokens."""
    texts: Sequence[str]
    """Texts of the tokens that follow it."""

    @property
    def last(self) -> int:
        """Position of the token that is read last."""
        return self.prompt_count + len(self.texts) - 1


class BlamedText(Panel):
    """Text with a mark at the latest position that brings the baseline's token back; all from
    there on is underlined."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "blame--value",
        "blame--mark",
        "blame--from-here",
        "blame--last",
    }

    _content: tuple[ReadText, WhereInText | None] | None = None

    def show(self, text: ReadText, where: WhereInText | None) -> None:
        self._content = text, where
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:
        if self._content is None:
            return []
        text, where = self._content
        latest = where.latest if where else None
        wrapped, positions = self._wrapped(text, latest, width)
        lines = [self._line(pieces, positions, text, latest) for pieces in wrapped.lines]
        at = len(lines)
        if latest is not None and latest < text.prompt_count:
            note = f"{FROM_HERE} from position {latest} on, in the prompt"
            lines.insert(0, Line().add(note, self.style("blame--mark")))
            at = 0
        elif latest is not None:
            at = wrapped.line_of[positions.index(latest)]
        top = min(max(at - height // 2, 0), max(len(lines) - height, 0))
        return lines[top : top + height]

    def _wrapped(
        self, text: ReadText, latest: int | None, width: int
    ) -> tuple[Wrapped, list[int | None]]:
        """Lines of the text, and positions by their pieces' steps; None for the prompt's words."""
        wrapped, positions = Wrapped(width), list[int | None]()
        head = f"prompt, positions 0 to {text.prompt_count - 1}:"
        for word in f"{head} {text.prompt.strip()}⏎".split(" "):
            wrapped.append(len(positions), f" {word}" if positions else word)
            positions.append(None)
        for position, token in enumerate(text.texts, start=text.prompt_count):
            mark = FROM_HERE if position == latest else ""
            wrapped.append(len(positions), f"{mark}{token}")
            positions.append(position)
        return wrapped, positions

    def _line(
        self,
        pieces: list[Piece],
        positions: list[int | None],
        text: ReadText,
        latest: int | None,
    ) -> Line:
        line = Line()
        for piece in pieces:
            position = positions[piece.last]
            style = self._style(position, text, latest)
            mark = FROM_HERE if latest in positions[piece.first : piece.last + 1] else ""
            if mark and latest is not None and piece.text.startswith(mark):
                line.add(mark, self.style("blame--mark")).add(piece.text[len(mark) :], style)
            else:
                line.add(piece.text, style)
        return line

    def _style(self, position: int | None, text: ReadText, latest: int | None) -> Style:
        if position is None:
            return self.style("panel--quiet")
        if position == text.last:
            return self.style("blame--last")
        if latest is not None and position >= latest:
            return self.style("blame--from-here")
        return self.style("blame--value")
