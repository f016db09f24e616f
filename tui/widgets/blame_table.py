"""Table of a blame's parts, and the parts given back one after another."""

from collections.abc import Sequence
from typing import ClassVar

from ...engine.trace.analysis.blame import PartEffect, agrees
from ...engine.trace.blame import Blame, NextToken, Part
from ...engine.trace.figures import MISSING, kl
from ...engine.trace.printable import visible
from .item_list import BETTER, OTHER
from .panel import SELECTED, Line, Panel, fill, shorten
from .row_list import HEADS, RowList

NAME_CELLS = 14
FIGURE_CELLS = 8
GIVEN_CELLS = 3 * FIGURE_CELLS
"""Width of the figures of a part given back."""
LEAST_LIST = 4
"""Height from which the parts given back one after another are a list."""
LEAST_TOKEN, MOST_TOKEN = 8, 24
"""Widths of a column of tokens, its mark included."""


def quoted_token(form: NextToken, cells: int | None = None) -> str:
    """Most probable token of a form in quotes, cut to so many cells."""
    if form.kl is None:
        return MISSING
    text = visible(form.text)
    return f"“{text}”" if cells is None else f"“{shorten(text, cells - 2)}”"


def part_label(part: Part) -> str:
    """Name of a part in a narrow column."""
    return part.name if part.layer is not None else "outside layers"


class PartTable(RowList):
    """List of the pruned parts, the one that leaves the least KL when given back first."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "blame--returns",
        "blame--departs",
        "blame--value",
        "blame--chosen",
        "blame--mark",
    }

    blame: Blame | None = None
    rows: Sequence[PartEffect] = ()

    def show(self, blame: Blame | None, rows: Sequence[PartEffect], selected: int) -> None:
        self.blame, self.rows = blame, rows
        self.count, self.selected = len(rows), selected
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:
        if self.blame is None:
            return []
        quiet = self.style("panel--quiet")
        tokens = width - 2 - NAME_CELLS - GIVEN_CELLS - FIGURE_CELLS
        cells = min(max(tokens // 2 - 1, LEAST_TOKEN), MOST_TOKEN)
        given, alone = GIVEN_CELLS + cells + 1, FIGURE_CELLS + cells
        view = self.rows_in_view(height)
        shown = f"{len(view)} of {self.count}" if len(view) < self.count else ""
        lines = [
            Line()
            .add(fill("  KL in nats", 2 + NAME_CELLS), quiet)
            .add(_ruled("given back", given), quiet)
            .add(_ruled("pruned alone", alone), quiet),
            Line()
            .add(fill(f"  {shown}", 2 + NAME_CELLS), quiet)
            .add("".join(n.rjust(FIGURE_CELLS) for n in ("less KL", "KL(p‖q)", "Δ gap z")), quiet)
            .add(fill("   token", cells + 1), quiet)
            .add("KL(p‖q)".rjust(FIGURE_CELLS) + "   token", quiet),
        ]
        for index in view:
            lines.append(self._row(self.rows[index], cells, chosen=index == self.selected))
        return lines

    def _row(self, effect: PartEffect, cells: int, *, chosen: bool) -> Line:
        blame = self.blame
        assert blame is not None
        value = self.style("blame--chosen" if chosen else "blame--value")
        quiet = self.style("panel--quiet")
        line = Line().add(f"{SELECTED} " if chosen else "  ", self.style("blame--mark"))
        line.add(fill(part_label(effect.part), NAME_CELLS), value)
        line.add(kl(effect.kl_reduction).rjust(FIGURE_CELLS), value)
        line.add(kl(effect.given_back.kl).rjust(FIGURE_CELLS), quiet)
        line.add(_gap(effect.gap_given_back).rjust(FIGURE_CELLS), quiet)
        self._token(line, blame, effect.given_back, cells + 1)
        line.add(kl(effect.alone.kl).rjust(FIGURE_CELLS), value)
        self._token(line, blame, effect.alone, cells)
        return line

    def _token(self, line: Line, blame: Blame, form: NextToken, cells: int) -> None:
        """Add a form's token, with a mark that says whether it is the baseline's."""
        same = agrees(blame, form)
        style = self.style("blame--returns" if same else "blame--departs")
        line.add(f" {BETTER if same else OTHER} ", style)
        line.add(fill(quoted_token(form, cells - 3), cells - 3), style)


def _ruled(name: str, cells: int) -> str:
    """Name of a group of columns before a rule as wide as they are."""
    return f"  {name} ".ljust(cells, "─")


def _gap(value: float | None) -> str:
    return MISSING if value is None else f"{value:+.2f}"


class CumulativePanel(Panel):
    """Parts given back one after another until the baseline's token is back: a list, or in few
    lines a sentence."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "blame--returns",
        "blame--departs",
        "blame--value",
    }

    blame: Blame | None = None

    def show(self, blame: Blame | None) -> None:
        self.blame = blame
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:
        if self.blame is None or not self.blame.cumulative.parts:
            return []
        return self._listed(width, height) if self.size.height >= LEAST_LIST else self._said()

    def _listed(self, width: int, height: int) -> list[Line]:
        blame = self.blame
        assert blame is not None
        cumulative, quiet = blame.cumulative, self.style("panel--quiet")
        lines = [
            Line().add(_ruled("one after another", width), quiet),
            Line().add(f"{' ' * (2 + NAME_CELLS)}{'KL(p‖q)'.rjust(FIGURE_CELLS)}   token", quiet),
        ]
        cells = min(max(width - 2 - NAME_CELLS - FIGURE_CELLS - 3, LEAST_TOKEN), MOST_TOKEN)
        for part, after in zip(cumulative.parts, cumulative.after, strict=True):
            same = agrees(blame, after)
            style = self.style("blame--returns" if same else "blame--departs")
            line = Line().add("  " if len(lines) == HEADS else "+ ", quiet)
            line.add(fill(part_label(part), NAME_CELLS), self.style("blame--value"))
            line.add(kl(after.kl).rjust(FIGURE_CELLS), self.style("blame--value"))
            line.add(f" {BETTER if same else OTHER} {quoted_token(after, cells)}", style)
            lines.append(line)
        lines.append(Line().add(f"  {cumulative.forms} forms were read for it", quiet))
        if len(lines) > height:
            last = lines[-2]
            more = f"  … {len(lines) - height} more"
            lines[height - 2 :] = [Line().add(more, quiet), last]
        return lines

    def _said(self) -> list[Line]:
        blame = self.blame
        assert blame is not None
        cumulative, line = blame.cumulative, Line()
        quiet = self.style("panel--quiet")
        line.add("one after another, KL: ", quiet)
        for number, (part, after) in enumerate(
            zip(cumulative.parts, cumulative.after, strict=True)
        ):
            same = agrees(blame, after)
            line.add(f"{'+ ' if number else ''}{part_label(part)} ", quiet)
            line.add(f"{kl(after.kl)} ", self.style("blame--value"))
            line.add(
                f"{BETTER if same else OTHER} ",
                self.style("blame--returns" if same else "blame--departs"),
            )
        return [line]
