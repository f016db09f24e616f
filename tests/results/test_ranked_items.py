"""Items as a lane answered them: what changed, their order, and texts that tell answers apart."""

import math

import msgspec
import pytest
from prunetui.engine.results.ranked_items import (
    Change,
    answer_text,
    first_difference,
    option_text,
    ranked_items,
)
from prunetui.engine.results.records import Answer, Item, Metric, Option

from ..support.results import make_item

ACCURACY = Metric(name="acc")


def item(index: int, before: float | None, after: float | None, kl: float, **answer: int) -> Item:
    """An item of two lanes with these scores; the lane chooses option 1 unless `answer` says."""
    made = make_item("options", index, variants=1)
    scores = [{} if score is None else {"acc,none": score} for score in (before, after)]
    logprobs: list[float | None] = [-1.0, -2.0, -3.0, -4.0]
    answers = [
        Answer(scores=scores[0], option=0, logprobs=logprobs),
        Answer(scores=scores[1], option=answer.get("option", 1), logprobs=logprobs[::-1]),
    ]
    drift = made.drift[0]
    assert drift is not None
    return msgspec.structs.replace(
        made, answers=answers, drift=[msgspec.structs.replace(drift, kl=kl)]
    )


def test_flips_come_first_then_other_answers_then_drift() -> None:
    items = [
        item(0, 1, 1, 5.0, option=0),
        item(1, 0, 0, 0.5),
        item(2, 0, 1, 0.1),
        item(3, 1, 0, 0.2),
        item(4, 1, 0, 3.0),
        item(5, 1, 1, 9.0, option=0),
        item(6, None, None, 7.0),
    ]
    rows = ranked_items(items, "options", ACCURACY, 1)
    assert [(row.item.index, row.change) for row in rows] == [
        (4, Change.WORSE),
        (3, Change.WORSE),
        (2, Change.BETTER),
        (6, Change.OTHER),
        (1, Change.OTHER),
        (5, Change.SAME),
        (0, Change.SAME),
    ]
    lower = Metric(name="acc", higher_is_better=False)
    changes = {row.item.index: row.change for row in ranked_items(items, "options", lower, 1)}
    assert (changes[4], changes[2]) == (Change.BETTER, Change.WORSE)
    unscored = ranked_items(items, "options", None, 1)
    assert {row.change for row in unscored} == {Change.OTHER, Change.SAME}


def test_of_graded_scores_the_largest_change_comes_first() -> None:
    items = [item(0, 0.9, 0.8, 9.0), item(1, 0.9, 0.1, 0.0), item(2, 0.2, 0.25, 1.0)]
    rows = ranked_items(items, "options", ACCURACY, 1)
    assert [row.item.index for row in rows] == [1, 0, 2]


def test_the_baseline_is_compared_with_nothing() -> None:
    items = [item(0, 0, 1, 0.5), item(1, 1, 0, 3.0)]
    rows = ranked_items(items, "options", ACCURACY, 0)
    assert [(row.item.index, row.change) for row in rows] == [(0, Change.SAME), (1, Change.SAME)]
    assert (rows[0].kl, rows[0].kl_options) == (None, None)


def test_numbers_of_a_row() -> None:
    (row,) = ranked_items([item(3, 1, 0, 0.25)], "options", ACCURACY, 1)
    total = sum(math.exp(-value) for value in (1, 2, 3, 4))
    p = [math.exp(-value) / total for value in (1, 2, 3, 4)]
    among = sum(a * math.log(a / b) for a, b in zip(p, p[::-1], strict=True))
    assert (row.margin, row.kl) == (1.0, 0.25)
    assert row.kl_options == pytest.approx(among, abs=1e-12)
    generation = make_item("generation", 1)
    (row,) = ranked_items([generation], "generation", None, 2)
    assert row.kl == generation.answers[2].kl != generation.drift[1]


def test_answers_are_options_texts_that_are_scored_and_documents() -> None:
    strict = Metric(name="exact_match", filter="strict-match")
    assert answer_text(make_item("options", 0), 0, ACCURACY) == "A[INST]"
    generation = make_item("generation", 0)
    assert answer_text(generation, 0, strict) == "yes"
    assert answer_text(generation, 0, None) == generation.answers[0].text
    assert answer_text(make_item("retrieval", 3), 1, None) == "doc3"
    assert answer_text(make_item("likelihood", 0), 0, None) == ""


def test_options_that_go_on_alike_are_told_apart_by_their_contexts() -> None:
    made = make_item("options", 0)
    contexts = ["Sarah was kinder than Maria, as Maria", "Sarah was kinder than Maria, as Mary"]
    options = [Option(text=" was mean.", tokens=[1], context=n) for n in (1, 0)]
    winogrande = msgspec.structs.replace(made, contexts=contexts, options=options)
    assert [option_text(winogrande, n) for n in (0, 1)] == ["Mary", "Maria"]


def test_first_difference() -> None:
    cases = [("abc", "abd"), ("ab", "abc"), ("", "x"), ("x", "x")]
    assert [first_difference(a, b) for a, b in cases] == [2, 2, 0, 1]
