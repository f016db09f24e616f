"""What n and N go to: disagreements, conditions and texts, in histories that grow."""

from collections.abc import Sequence

import msgspec
import pytest
from prunetui.engine.trace.analysis.breakpoints import parse_breakpoint
from prunetui.engine.trace.analysis.seek import (
    Matches,
    Sought,
    condition,
    disagreements,
    text_search,
)
from prunetui.engine.trace.records import Drift, Header, Step

from ..support.traces import broken_step, make_header, make_step, make_trace, with_local

HEADER = make_header()
LENGTH = 20


def in_context(context: str) -> Header:
    return msgspec.structs.replace(HEADER, context=context)


def with_local_top1(step: Step, agree: Sequence[bool]) -> Step:
    """A step whose variants agree with the baseline on its tokens as said."""
    local: list[Drift | None] = [
        msgspec.structs.replace(drift, top1=top1) if drift else None
        for drift, top1 in zip(step.drift, agree, strict=True)
    ]
    return msgspec.structs.replace(step, local=local)


def saying(*texts: Sequence[str]) -> list[Step]:
    """Steps at which every lane's token has the text given, a sequence for each lane."""
    steps: list[Step] = []
    for number, step_texts in enumerate(zip(*texts, strict=True)):
        step = make_step(number)
        lanes = [
            token and msgspec.structs.replace(token, text=text)
            for token, text in zip(step.lanes, step_texts, strict=True)
        ]
        steps.append(msgspec.structs.replace(step, lanes=lanes))
    return steps


def found(sought: Sought, steps: list[Step]) -> list[int]:
    return Matches(sought).take(steps).steps


BOTH = [
    with_local_top1(make_step(n), (n not in (5, 9, 15), n not in (9, 11))) for n in range(LENGTH)
]


@pytest.mark.parametrize(("lane", "expected"), [(1, [5, 9, 15]), (2, [9, 11]), (0, [5, 9, 11, 15])])
def test_in_context_both_the_local_top1_disagrees(lane: int, expected: list[int]) -> None:
    assert found(disagreements(in_context("both"), lane), BOTH) == expected


def test_in_a_forced_context_the_drift_is_local() -> None:
    forced = [msgspec.structs.replace(s, drift=s.local, local=None) for s in BOTH]
    assert found(disagreements(in_context("forced"), 1), forced) == [5, 9, 15]


def test_a_free_context_has_the_tokens_that_differ() -> None:
    steps = make_trace(LENGTH).steps
    assert found(disagreements(HEADER, 2), steps) == [*range(8, LENGTH)]
    assert found(disagreements(HEADER, 0), steps) == [*range(4, LENGTH)]
    assert found(disagreements(make_header(variants=0), 0), steps) == []


def test_logits_that_are_not_numbers_do_not_disagree() -> None:
    steps = [broken_step(n) for n in range(3)]
    assert found(disagreements(in_context("forced"), 1), steps) == []
    ended = msgspec.structs.replace(make_step(3), drift=[None, None])
    assert found(disagreements(in_context("forced"), 1), [ended]) == []


@pytest.mark.parametrize("text", ["kl > 2", "lane 2 differs", "lane 0 entropy >= 1", "collapses"])
def test_a_condition_is_where_playing_would_stop(text: str) -> None:
    steps = make_trace(60).steps
    stop = parse_breakpoint(text, HEADER)
    expected = [n for n in range(60) if stop.hit(steps, n)]
    assert len(expected) > 0
    assert found(condition(stop), steps) == expected


def test_a_condition_names_the_lane_that_meets_it() -> None:
    steps = with_local(make_trace(LENGTH)).steps
    matches = Matches(condition(parse_breakpoint("differs", HEADER))).take(steps)
    assert [matches.lane_at(4, lane) for lane in (0, 1, 2)] == [1, 1, 1]
    assert [matches.lane_at(8, lane) for lane in (0, 1, 2)] == [1, 1, 2]


TEXTS = saying(
    ["The", " ans", "wer is", " 42", "."],
    ["The", " Answer", " an", "swer", " answer"],
    ["\n", "[b]", "\u202e", "", "a.b"],
)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        # A match is where it begins, whatever tokens it takes.
        ("answer", {1: [0, 1], 2: [1], 4: [1]}),
        ("Answer", {1: [1]}),
        ("answer is 42.", {1: [0]}),
        ("the", {0: [0, 1]}),
        ("r", {1: [1], 2: [0], 3: [1], 4: [1]}),
        ("a.b", {4: [2]}),
        ("[b]", {1: [2]}),
        # As the screen shows it.
        ("⏎[", {0: [2]}),
        ("\n[", {0: [2]}),
        ("<U+202E>a", {2: [2]}),
        ("nowhere", {}),
    ],
)
def test_a_text_is_searched_in_all_lanes(query: str, expected: dict[int, list[int]]) -> None:
    matches = Matches(text_search(query, HEADER)).take(TEXTS)
    assert matches.steps == [*expected]
    lanes = range(len(HEADER.lanes))
    assert {
        step: [lane for lane in lanes if matches.lane_at(step, lane) == lane] for step in expected
    } == expected


def test_a_text_that_repeats_itself_is_found_once_per_repetition() -> None:
    steps = saying(*[["ab", "ab", "aba", "b"]] * 3)
    assert found(text_search("abab", HEADER), steps) == [0, 2]


@pytest.mark.parametrize("query", ["answer", "r", "abab", "differs", "lane 0 collapses", ""])
def test_a_history_that_grows_has_the_matches_of_the_whole(query: str) -> None:
    steps = TEXTS + saying(*[["ab", "ab", "aba", "b"]] * 3)
    if not query:
        sought = disagreements(HEADER, 1)
    elif query in ("differs", "lane 0 collapses"):
        steps = make_trace(60).steps
        sought = condition(parse_breakpoint(query, HEADER))
    else:
        sought = text_search(query, HEADER)
    whole, growing, history = Matches(sought).take(steps), Matches(sought), []
    for step in steps:
        history.append(step)
        growing.take(history)
    assert whole.steps
    assert growing.steps == whole.steps
    for step in whole.steps:
        assert [growing.lane_at(step, n) for n in range(3)] == [
            whole.lane_at(step, n) for n in range(3)
        ]


def test_matches_are_gone_through_in_order() -> None:
    matches = Matches(disagreements(in_context("both"), 1)).take(BOTH)
    assert [matches.after(cursor) for cursor in (-1, 5, 8, 9, 15, 19)] == [5, 9, 9, 15, None, None]
    assert [matches.before(cursor) for cursor in (19, 15, 9, 6, 5, -1)] == [15, 9, 5, 5, None, None]
    assert [matches.position(cursor) for cursor in (5, 6, 15)] == ["1 of 3", "3", "3 of 3"]
