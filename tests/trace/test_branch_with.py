"""Branches that forcing tokens would only repeat."""

import msgspec
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.trace.records import Step
from prunetui.engine.trace.trace import Trace

from ..support.traces import broken_step, make_header, make_step

AT = 6
OWN = [token.token if token else -1 for token in make_step(AT).lanes]
"""Tokens that the lanes choose at the step."""
OTHER = 11


def forced_step(tokens: dict[int, int]) -> Step:
    step = make_step(AT)
    lanes = [
        msgspec.structs.replace(token, token=tokens[lane], forced=True)
        if token and lane in tokens
        else token
        for lane, token in enumerate(step.lanes)
    ]
    return msgspec.structs.replace(step, lanes=lanes)


def trace_with(step: Step, *, again: bool = False) -> Trace:
    """A trace whose branch 1 has this step; `again`: its history is decoded a second time."""
    trace = Trace(make_header())
    for number in range(10):
        trace.append(make_step(number))
    trace.fork(0 if again else AT)
    for number in range(len(trace.steps), AT):
        trace.append(make_step(number))
    trace.append(step)
    trace.switch(0)
    return trace


@pytest.mark.parametrize("tokens", [{1: OWN[1]}, dict(enumerate(OWN)), {0: OWN[0], 2: OWN[2]}])
def test_what_the_lanes_took_is_refused(tokens: dict[int, int]) -> None:
    with pytest.raises(UserError, match=f"at step {AT} already; force another token"):
        trace_with(forced_step({1: OTHER})).branch_with(AT, tokens)


def test_the_lane_and_the_token_are_named() -> None:
    with pytest.raises(UserError) as told:
        trace_with(make_step(AT)).branch_with(1, {1: 1})
    assert str(told.value) == "drop:attn=1 takes ' word1' at step 1 already; force another token"


@pytest.mark.parametrize("tokens", [{1: OTHER}, {0: OWN[0], 1: OTHER}, dict.fromkeys(range(3), 6)])
def test_what_some_lane_did_not_take_is_new(tokens: dict[int, int]) -> None:
    assert trace_with(make_step(AT)).branch_with(AT, tokens) is None


@pytest.mark.parametrize("again", [False, True])
def test_a_branch_that_has_the_token_is_found(again: bool) -> None:
    trace = trace_with(forced_step({1: OTHER}), again=again)
    assert trace.branch_with(AT, {1: OTHER}) == 1
    assert trace.branch_with(AT, {0: OWN[0], 1: OTHER, 2: OWN[2]}) == 1
    # From another history, or with another lane forced, it is no such branch.
    assert trace.branch_with(AT + 1, {1: OTHER}) is None
    assert trace.branch_with(AT, {2: OTHER}) is None
    assert (
        trace_with(forced_step({1: OTHER, 2: 7}), again=again).branch_with(AT, {1: OTHER}) is None
    )


def test_a_lane_whose_neighbour_was_forced_is_not_repeated() -> None:
    trace = trace_with(forced_step({2: OTHER}))
    trace.switch(1)
    assert trace.branch_with(AT, {1: OWN[1]}) == 0


def test_another_history_is_another_branch() -> None:
    trace = trace_with(forced_step({1: OTHER}), again=True)
    trace.branches[1][2] = make_step(3)
    assert trace.branch_with(AT, {1: OTHER}) is None


def test_what_is_not_decoded_yet_or_stands_in_for_a_token_is_new() -> None:
    trace = trace_with(make_step(AT))
    assert trace.branch_with(10, {1: OTHER}) is None
    broken = Trace(make_header())
    broken.append(broken_step(0))
    assert broken.branch_with(0, {1: 0}) is None
    assert Trace(make_header()).branch_with(0, {0: 0}) is None
