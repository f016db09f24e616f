"""Text of every lane, a block of wrapped lines each."""

from typing import ClassVar

from rich.cells import cell_len
from rich.style import Style
from textual import events

from ...engine.trace.divergence import chose_nothing, differs, is_tie, not_numbers_mark
from ...engine.trace.printable import visible
from ...engine.trace.records import Header, Step
from ..history_memo import HistoryMemo
from ..moment import Moment
from .key_line import key_for
from .panel import NOT_FINITE, SELECTED, Clicked, Line, Panel, shorten
from .row_shares import share_rows
from .wrapping import Piece, Wrapped

DIVERGES = "◆"
TIES = "◇"
ENDS = "■"

NAME_CELLS = 26


class Block:
    """Wrapped text of one lane, and which of its lines are on the screen."""

    def __init__(self, lane: int, width: int, height: int) -> None:
        self.lane = lane
        self.height = height
        self.diverges: int | None = None
        """First step that differs from the baseline's."""
        self.mark = DIVERGES
        """Mark of that step: `TIES` if rounding alone could have caused the difference."""
        self.wrapped = Wrapped(width)
        self.top = 0
        self.ended = False
        """Whether the lane's last token is taken: its text grows no more."""
        self._taken = 0
        self._chose_nothing = False
        """Whether the lane chose no token at the last step taken."""
        self._cursor = 0

    def take(self, header: Header, steps: list[Step]) -> None:
        """Wrap the steps not yet taken."""
        for step in steps[self._taken : len(steps)]:
            token = step.lanes[self.lane]
            text = visible(token.text) if token else ""
            if chose_nothing(step, self.lane):
                # One mark for the run, and a sign for each step that goes on with it.
                text = NOT_FINITE if self._chose_nothing else not_numbers_mark(1)
            self._chose_nothing = chose_nothing(step, self.lane)
            if self.diverges is None and differs(step, self.lane):
                self.diverges = step.step
                self.mark = TIES if is_tie(header, step, self.lane) else DIVERGES
                unindented = text.lstrip(" ")
                text = " " * (len(text) - len(unindented)) + self.mark + unindented
            if token and token.ended:
                self.ended = True
                text += ENDS
            self.wrapped.append(step.step, text)
            self._taken += 1

    @property
    def need(self) -> int:
        """Rows that show all lines, and the note on the first divergence."""
        return max(len(self.wrapped.lines), 1 if self.diverges is None else 2)

    def resize(self, height: int) -> None:
        """Take another height; the last page stays full."""
        self.height = height
        self.top = min(self.top, self._last_top)

    @property
    def _last_top(self) -> int:
        return max(0, len(self.wrapped.lines) - self.height)

    def turn_to(self, cursor: int) -> None:
        """Turn half a block when the cursor's line leaves it: scrolling would send every line."""
        if cursor < 0:
            return
        line = self.wrapped.line_of[cursor]
        far = abs(cursor - self._cursor) > 1
        self._cursor = cursor
        if not self.top <= line < self.top + self.height:
            self.top = max(0, line - self.height // 2)
            # The half that is blank is for lines to come.
            if far or line < len(self.wrapped.lines) - 1:
                self.top = min(self.top, self._last_top)
        if self.ended:
            self.top = min(self.top, self._last_top)

    def pieces(self, row: int) -> list[Piece]:
        line = self.top + row
        return self.wrapped.lines[line] if line < len(self.wrapped.lines) else []


class TextPanel(Panel):
    """Panel of every lane's text, with the cursor and the first divergence in each."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "text--name",
        "text--selected",
        "text--same",
        "text--diverged",
        "text--later",
        "text--later-diverged",
        "text--cursor",
        "text--mark",
    }

    moment: Moment | None = None

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._memo = HistoryMemo[list[Block]]()
        self._rows: list[tuple[Block, int]] = []
        """Block and its row on each line below the title; the row below a block's last is blank."""
        self._name_width = 0

    def show(self, moment: Moment) -> None:
        self.moment = moment
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:
        moment = self.moment
        if moment is None:
            return []
        lines = [
            self.title(width, "text", shorten(f"prompt: {moment.header.prompt.text}", width - 9))
        ]
        self._lay_out(moment, width, height - 1)
        for block, row in self._rows:
            lines.append(self._line(moment, block, row) if row < block.height else Line())
        if not moment.steps:
            play, step = key_for(self, "play"), key_for(self, "forward")
            invitation = f"  The prompt is read. {play} decodes, {step} takes one step."
            lines[1:] = [Line(), Line().add(invitation, self.style("panel--quiet"))]
        return lines

    def rows_needed(self, moment: Moment) -> int:
        """Height of the panel that shows all of every text."""
        blocks = self._blocks(moment, self.size.width)
        return 1 + sum(block.need for block in blocks) + len(blocks) - 1

    def _blocks(self, moment: Moment, width: int) -> list[Block]:
        """Blocks of all lanes with every step taken."""
        lanes = len(moment.header.lanes)
        names = [cell_len(visible(lane.name)) for lane in moment.header.lanes]
        self._name_width = min(max(*names, 10), NAME_CELLS, width // 4) + 4
        text_width = width - self._name_width - 1
        blocks = self._memo.growing(
            moment.steps,
            text_width,
            lambda: [Block(lane, text_width, 0) for lane in range(lanes)],
        )
        for block in blocks:
            block.take(moment.header, moment.steps)
        return blocks

    def _lay_out(self, moment: Moment, width: int, height: int) -> None:
        """Choose the lanes that are shown, the rows of their blocks and the page of each."""
        blocks, lanes = self._blocks(moment, width), len(moment.header.lanes)
        count = min(lanes, height)
        first = min(max(0, moment.lane - count + 1), lanes - count)
        shown = blocks[first : first + count]
        # A blank line between the lanes, where three are left for the text.
        gap = int(height // count > 3)
        rows = height - gap * (count - 1)
        # One above the next panel, unless the text needs it.
        self._share(shown, rows - (gap and sum(block.need for block in shown) < rows))
        for block in shown:
            block.turn_to(moment.cursor)
        self._rows = [(block, row) for block in shown for row in range(block.height + gap)]

    def _share(self, blocks: list[Block], rows: int) -> None:
        """Give the blocks these rows in all, only if a block gains a row that it needs.

        Blocks move then, and every line of theirs is sent.
        """
        shares = share_rows(
            [block.need for block in blocks], [not block.ended for block in blocks], rows
        )
        gains = any(
            block.height < min(block.need, share)
            for block, share in zip(blocks, shares, strict=True)
        )
        if gains or sum(block.height for block in blocks) != rows:
            for block, share in zip(blocks, shares, strict=True):
                block.resize(share)

    def _line(self, moment: Moment, block: Block, row: int) -> Line:
        line = Line()
        selected = block.lane == moment.lane
        cells = self._name_width - 3
        if row == 0:
            mark = SELECTED if selected else " "
            name = self.style("text--selected" if selected else "text--name")
            line.add(f"{mark} ", self.style("text--mark"))
            line.add(shorten(moment.header.lanes[block.lane].name, cells), name)
        elif row == 1 and block.diverges is not None:
            tie = " tie" if block.mark == TIES else ""
            line.add(f"  {block.mark}", self.style("text--mark"))
            line.add(f" step {block.diverges}{tie}", self.style("panel--quiet"))
        line.pad_to(self._name_width, self.rich_style)
        for piece in block.pieces(row):
            style = self._piece_style(moment, block, piece)
            before, mark, after = piece.text.partition(block.mark)
            if mark and block.diverges is not None and piece.first <= block.diverges <= piece.last:
                line.add(before, style).add(mark, self.style("text--mark")).add(after, style)
            else:
                line.add(piece.text, style)
        return line

    def _piece_style(self, moment: Moment, block: Block, piece: Piece) -> Style:
        if piece.first <= moment.cursor <= piece.last:
            return self.style("text--cursor")
        if moment.header.context == "forced":
            diverged = differs(moment.steps[piece.last], block.lane)
        else:
            diverged = block.diverges is not None and piece.last >= block.diverges
        later = "later-" if piece.first > moment.cursor else ""
        if diverged:
            return self.style(f"text--{later}diverged")
        return self.style("text--later" if later else "text--same")

    def on_click(self, event: events.Click) -> None:
        if not 1 <= event.y <= len(self._rows):
            return
        block, row = self._rows[event.y - 1]
        right = self._name_width
        step = None
        if event.x >= right and row < block.height:
            for piece in block.pieces(row):
                right += cell_len(piece.text)
                if event.x < right:
                    step = piece.last
                    break
        self.post_message(Clicked(lane=block.lane, step=step))
