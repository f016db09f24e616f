"""Whole text of an item: question, options or generated texts or documents, numbers, prompt."""

from collections.abc import Iterator
from itertools import islice, zip_longest
from typing import ClassVar

from rich.cells import cell_len

from ...engine.results.item_measures import (
    item_collapse,
    near_tie,
    option_probabilities,
    overlap,
)
from ...engine.results.ranked_items import Change, ItemRow, drift_of, first_difference, option_text
from ...engine.results.records import Item, Kind, Match
from ...engine.results.table import metric_label
from ...engine.trace.figures import MISSING, cosine, distance, nats, score, share
from ...engine.trace.printable import visible
from .candidates import CHOSEN, horizontal_bar, probability, quoted
from .item_list import MARKS, ListedTask
from .panel import Line, Panel, fill, shorten
from .text_panel import DIVERGES
from .wrapping import Wrapped

CHANGES = {
    Change.WORSE: "worse than the baseline",
    Change.BETTER: "better than the baseline",
    Change.OTHER: "another answer of the same score",
    Change.SAME: "as the baseline",
}

GOLD = "gold"
LABEL_CELLS = 6
BAR_CELLS = 8
LANE_CELLS = 26
"""Width of a lane's bar, probability, log probability and mark."""

Span = tuple[str, str]
"""Text and the name of its style."""

FOREGROUND, QUIET = "items--row", "panel--quiet"


class ItemPanel(Panel):
    """Panel of one item, which pages through more than fits."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "items--row",
        "items--selected",
        "items--other",
        "candidates--baseline",
        "candidates--variant",
        "items--mark",
    }

    def __init__(self) -> None:
        super().__init__()
        self._row: ItemRow | None = None
        self._listed: ListedTask | None = None
        self._top = 0
        """First line shown below the title."""
        self._lines: list[Line] = []
        """Lines that are wrapped by now: a prompt may have thousands."""
        self._more: Iterator[Line] = iter(())
        self._wrapped_for: tuple[ItemRow | None, int] = (None, 0)

    def show(self, row: ItemRow | None, listed: ListedTask) -> None:
        if row is not self._row:
            self._top = 0
        self._row, self._listed = row, listed
        self.redraw()

    def turn_page(self, pages: int) -> None:
        """Move by pages; after the last comes the first again."""
        page = max(self.size.height - 1, 1)
        top = self._top + pages * page
        self._wrap_to(top + 1)
        self._top = max(top, 0) if top < len(self._lines) else 0
        self.redraw()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._wrapped_for = (None, 0)

    def draw(self, width: int, height: int) -> list[Line]:
        row, listed = self._row, self._listed
        if row is None or listed is None:
            return []
        if self._wrapped_for[0] is not row or self._wrapped_for[1] != width:
            self._lines, self._more = [], self._build(row, listed, width)
            self._wrapped_for = (row, width)
        room = height - 1
        self._wrap_to(self._top + room + 1)
        title = f"{row.item.task} {row.item.index}"
        if row.lane:
            title += f"  {MARKS[row.change]} {CHANGES[row.change]}".replace("   ", "  ")
        below = len(self._lines) > self._top + room
        page = f"from line {self._top + 1}" if self._top else ""
        note = ", ".join(part for part in (page, "space: more" if below else "") if part)
        return [
            self.title(width, title, note, room_for=note),
            *self._lines[self._top : self._top + room],
        ]

    def _wrap_to(self, count: int) -> None:
        self._lines += islice(self._more, max(count - len(self._lines), 0))

    # -- what is shown ------------------------------------------------------------------------

    def _build(self, row: ItemRow, listed: ListedTask, width: int) -> Iterator[Line]:
        yield from self._paragraphs([(row.item.question, FOREGROUND)], width)
        yield Line()
        lanes = [(0, listed.lanes[0])]
        if row.lane:
            lanes.append((row.lane, listed.lanes[1]))
        match listed.kind:
            case "options":
                yield from self._options(row, lanes, width)
            case "likelihood":
                yield from self._likelihood(row, lanes)
            case "generation":
                yield from self._texts(row, lanes, width)
            case "retrieval":
                yield from self._matches(row, lanes, width)
        yield Line()
        for sentence in _numbers(row, listed):
            yield from self._paragraphs([(sentence, QUIET)], width)
        yield Line()
        yield from self._prompt(row.item, listed.kind, width)

    def _options(self, row: ItemRow, lanes: list[tuple[int, str]], width: int) -> Iterator[Line]:
        texts = [option_text(row.item, option) for option in range(len(row.item.options))]
        room = max(width - LABEL_CELLS - (LANE_CELLS + 2) * len(lanes), 8)
        room = min(room, max(cell_len(visible(text)) for text in ["option", *texts]))
        head = Line().add(" " * LABEL_CELLS + fill("option", room), self.style(QUIET))
        for _, name in lanes:
            head.add(f"  {fill(name, LANE_CELLS)}", self.style(QUIET))
        yield head
        probabilities = [option_probabilities(row.item.answers[lane]) for lane, _ in lanes]
        for option, text in enumerate(texts):
            gold = option == row.item.gold_option
            style = self.style("items--selected" if gold else FOREGROUND)
            line = Line().add(fill(GOLD if gold else "", LABEL_CELLS), style)
            line.add(fill(text, room), style)
            for (lane, _), probs in zip(lanes, probabilities, strict=True):
                line.add("  ", style)
                self._option(line, row, lane, option, probs[option] if probs else None)
            yield line
        units = "bars: softmax among the options, 0–1; log probabilities of whole options in nats"
        yield from self._paragraphs([(units, QUIET)], width)

    def _option(
        self, line: Line, row: ItemRow, lane: int, option: int, share_: float | None
    ) -> None:
        answer = row.item.answers[lane]
        chosen = answer.option == option
        logprob = answer.logprobs[option] if answer.logprobs else None
        figure = MISSING if logprob is None else f"{logprob:.2f}"
        line.add(
            horizontal_bar(share_ or 0.0, BAR_CELLS),
            self.style("candidates--variant" if lane else "candidates--baseline"),
        )
        style = self.style("items--selected" if chosen else QUIET)
        mark = CHOSEN if chosen else ""
        line.add(f" {probability(share_)} {figure:>9} {mark:<2}", style)

    def _likelihood(self, row: ItemRow, lanes: list[tuple[int, str]]) -> Iterator[Line]:
        for lane, name in lanes:
            logprobs = row.item.answers[lane].logprobs
            value = logprobs[0] if logprobs else None
            figure = MISSING if value is None else f"{value:.3f} nats"
            yield Line().add(f"{fill(name, LANE_CELLS)}  {figure}", self.style(FOREGROUND))
        yield Line().add("log probability of the text after its context", self.style(QUIET))

    def _texts(self, row: ItemRow, lanes: list[tuple[int, str]], width: int) -> Iterator[Line]:
        """Generated texts; the first difference is marked, and what follows it in the lane's."""
        if row.gold:
            gold = [(fill(GOLD, LABEL_CELLS), QUIET), (row.gold, "items--selected")]
            yield from self._paragraphs(gold, width)
        texts = [row.item.answers[lane].text or "" for lane, _ in lanes]
        same = first_difference(*texts) if len({*texts}) > 1 else None
        for (lane, name), text in zip(lanes, texts, strict=True):
            answer = row.item.answers[lane]
            facts = [shorten(name, LANE_CELLS), f"{len(answer.tokens)} tokens"]
            if answer.divergence is not None:
                facts.append(f"first token that differs: step {answer.divergence}")
            collapse = item_collapse(row.item, lane)
            if collapse.start is not None:
                facts.append(f"collapses into repetition from step {collapse.start}")
            elif collapse.as_baseline:
                facts.append("ends in repetition, as the baseline's text does")
            yield Line().add(" · ".join(facts), self.style(QUIET))
            spans: list[Span] = [(text[:same], FOREGROUND)]
            if same is not None:
                after = "items--other" if lane else FOREGROUND
                spans += [(DIVERGES, "items--mark"), (text[same:], after)]
            yield from self._paragraphs(spans, width)
        for name in row.item.answers[0].filtered:
            taken = [row.item.answers[lane].filtered.get(name, "") for lane, _ in lanes]
            answers = " → ".join(_in_line(shorten(text, 60)) for text in taken)
            yield from self._paragraphs([(f"taken by {name}: {answers}", QUIET)], width)

    def _matches(self, row: ItemRow, lanes: list[tuple[int, str]], width: int) -> Iterator[Line]:
        """The documents that the lanes found, by rank."""
        cells = (width - 4) // len(lanes) - 2
        line = Line().add("    ", self.style(QUIET))
        for _, name in lanes:
            line.add(f"{fill(f'{name}: document, cosine, relevance', cells)}  ", self.style(QUIET))
        yield line
        columns = [row.item.answers[lane].matches for lane, _ in lanes]
        for rank, found in enumerate(zip_longest(*columns), start=1):
            line = Line().add(f"{rank:>2}  ", self.style(QUIET))
            for match in found:
                relevant = match is not None and match.relevance > 0
                style = self.style("items--selected" if relevant else FOREGROUND)
                line.add(f"{_match(match, cells)}  ", style)
            yield line

    def _prompt(self, item: Item, kind: Kind, width: int) -> Iterator[Line]:
        facts = [f"prompt of {len(item.tokens)} tokens"]
        if item.truncated:
            side = "right" if kind == "retrieval" else "left"
            facts.append(f"{item.truncated} more cut off on the {side}")
        if item.max_new_tokens is not None:
            facts.append(f"at most {item.max_new_tokens} new ones")
        if item.until:
            facts.append("up to " + ", ".join(_in_line(text) for text in item.until))
        yield from self._paragraphs([(", ".join(facts), QUIET)], width)
        for context in item.contexts:
            yield from self._paragraphs([(context, FOREGROUND)], width)

    def _paragraphs(self, spans: list[Span], width: int) -> Iterator[Line]:
        """Lines of spans, a paragraph at a time: what is not looked at is not wrapped."""
        paragraph: list[Span] = []
        for text, style in spans:
            head, *others = text.split("\n")
            paragraph.append((head, style))
            for other in others:
                yield from self._wrapped([*paragraph, ("\n", style)], width)
                paragraph = [(other, style)]
        if any(text for text, _ in paragraph):
            yield from self._wrapped(paragraph, width)

    def _wrapped(self, spans: list[Span], width: int) -> Iterator[Line]:
        wrapped, styles = Wrapped(width), []
        for text, style in spans:
            for number, word in enumerate(text.split(" ")):
                wrapped.append(len(styles), f" {word}" if number else word)
                styles.append(self.style(style))
        for pieces in wrapped.lines:
            line = Line()
            for piece in pieces:
                line.add(piece.text, styles[piece.last])
            yield line


def _in_line(text: str) -> str:
    """Text in quotes, whose newlines are to end no line."""
    return quoted(text.replace("\n", "\\n").replace("⏎", "\\n"))


def _match(match: Match | None, cells: int) -> str:
    if match is None:
        return " " * cells
    relevance = f"rel {match.relevance}" if match.relevance else ""
    similarity = distance(match.similarity)
    return f"{fill(match.id, cells - 17)} {similarity:>8}  {fill(relevance, 6)}"


def _numbers(row: ItemRow, listed: ListedTask) -> Iterator[str]:
    """Sentences of scores and drift, with space, direction and unit."""
    item, lane = row.item, row.lane
    scores = []
    for metric in listed.metrics:
        values = [item.answers[own].scores.get(metric.key) for own in {0: 0, lane: 0}]
        if all(isinstance(value, int | float) for value in values):
            scores.append(f"{metric_label(metric)} {' → '.join(map(score, values))}")
    if scores:
        yield f"{'baseline → lane: ' if lane else ''}{' · '.join(scores)}"
    if row.margin is not None:
        tie = near_tie(item.answers[0], listed.noise_floor)
        floor = f"{'below' if tie else 'above'} the noise floor of {nats(listed.noise_floor)}"
        yield f"margin of the baseline's best two options {nats(row.margin)}, {floor}"
    drift, answer = drift_of(item, lane), item.answers[lane]
    if drift is not None:
        among = f", among the options {nats(row.kl_options)}" if row.kl_options is not None else ""
        yield (
            f"at the answering position, local: KL(p‖q) {nats(drift.kl)}{among} · "
            f"{'the same' if drift.top1 else 'another'} top-1"
        )
        spaces = [f"{space} {cosine(getattr(drift, f'cos_{space}'))}" for space in "hzp"]
        yield f"cosines there: {' · '.join(spaces)}"
    if lane and answer.kl is not None:
        yield f"mean KL(p‖q) over the baseline's tokens, local: {nats(answer.kl)}"
    if lane and answer.cosine is not None:
        shared = share(overlap(answer, item.answers[0]))
        yield f"cosine of the embeddings {cosine(answer.cosine)} · overlap of the ten {shared}"
