"""Items of a task with what one lane makes of them, those that changed first."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from ..trace.records import Drift
from .item_measures import kl_among_options, margin, same_answer, score_of
from .records import Item, Kind, Metric


class Change(IntEnum):
    """What a lane's answer is to the baseline's, in the order of a list."""

    WORSE = 0
    """A lower score; of right and wrong, right → wrong."""
    BETTER = 1
    OTHER = 2
    """Another answer of the same score."""
    SAME = 3


@dataclass(frozen=True)
class ItemRow:
    """An item, and numbers of one lane beside the baseline's."""

    item: Item
    lane: int
    change: Change
    scores: tuple[float | None, float | None]
    """Main score of the baseline and of the lane; None where the score is no number."""
    gold: str
    answers: tuple[str, str]
    """Answer of the baseline and of the lane."""
    margin: float | None
    """Gap of the log probabilities of the baseline's best two options, in nats."""
    kl: float | None
    """KL(p ‖ q) in nats, p the baseline's: at the answering position, and of a generation the mean
    over the baseline's tokens. Local."""
    kl_options: float | None
    """KL(p ‖ q) in nats among the options, of which p and q are the softmax."""

    @property
    def distance(self) -> float:
        """How far the lane is from the baseline: by KL, in retrieval by 1 − cos; -1 if unknown."""
        cosine = self.item.answers[self.lane].cosine
        if self.kl is not None:
            return self.kl
        return 1 - cosine if cosine is not None else -1.0


def ranked_items(
    items: Iterable[Item], kind: Kind, metric: Metric | None, lane: int
) -> list[ItemRow]:
    """Rows of a lane: what got worse, what got better, another answer, the same; in each of these
    the largest change of score first, then the largest drift.

    `metric` is the score; without one, nothing is worse or better. The baseline has nothing to be
    compared with: its rows are in the order of the file.
    """
    rows = [_row(item, kind, metric, lane) for item in items]
    if lane:
        rows.sort(key=_rank)
    return rows


def answer_text(item: Item, lane: int, metric: Metric | None) -> str:
    """Answer of a lane: its option, the filtered text that is scored, or the best document."""
    answer = item.answers[lane]
    if answer.option is not None:
        return option_text(item, answer.option)
    if answer.text is not None:
        return answer.filtered.get(metric.filter, answer.text) if metric else answer.text
    return answer.matches[0].id if answer.matches else ""


def option_text(item: Item, option: int) -> str:
    """Text that tells an option from the others: where all go on alike, the end of its context."""
    texts = [own.text for own in item.options]
    if len(texts) > 1 and len(set(texts)) == 1:
        context = item.contexts[item.options[option].context]
        return context[len(_common_start(item.contexts)) :].strip()
    return texts[option].strip()


def drift_of(item: Item, lane: int) -> Drift | None:
    """Drift of a lane at the answering position; None for the baseline, and where there is none."""
    return item.drift[lane - 1] if lane and item.drift else None


def first_difference(a: str, b: str) -> int:
    """Index of the first character that differs, or the length of the shorter text."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((n for n, (x, y) in pairs if x != y), min(len(a), len(b)))


def _row(item: Item, kind: Kind, metric: Metric | None, lane: int) -> ItemRow:
    baseline, answer, drift = item.answers[0], item.answers[lane], drift_of(item, lane)
    scores = (score_of(baseline, metric), score_of(answer, metric)) if metric else (None, None)
    answers = answer_text(item, 0, metric), answer_text(item, lane, metric)
    kl = drift.kl if drift else None
    return ItemRow(
        item,
        lane,
        _change(item, lane, scores, metric) if lane else Change.SAME,
        scores,
        gold=item.gold,
        answers=answers,
        margin=margin(baseline),
        kl=answer.kl if kind == "generation" else kl,
        kl_options=kl_among_options(answer, baseline) if lane else None,
    )


def _change(
    item: Item, lane: int, scores: tuple[float | None, float | None], metric: Metric | None
) -> Change:
    before, after = scores
    if metric is not None and before is not None and after is not None and before != after:
        better = (after > before) == metric.higher_is_better
        return Change.BETTER if better else Change.WORSE
    answer_filter = metric.filter if metric else "none"
    same = same_answer(item.answers[lane], item.answers[0], answer_filter)
    return Change.OTHER if same is False else Change.SAME


def _rank(row: ItemRow) -> tuple[int, float, float]:
    before, after = row.scores
    moved = 0.0 if before is None or after is None else abs(after - before)
    return row.change, -moved, -row.distance


def _common_start(texts: list[str]) -> str:
    """Longest text that all begin with, up to a word's beginning."""
    start = min(texts)[: first_difference(min(texts), max(texts))]
    return start[: start.rfind(" ") + 1]
