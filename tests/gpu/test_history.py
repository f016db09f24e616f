"""Rewinding, branching, forcing and looking back on a GPU, by graph and eagerly."""

from typing import Any

import pytest
from prunetui.engine.session.session import Session

from ..support.steps import decode_all, lane_tokens
from .sessions import STEPS, open_tiny, without_cost

FAMILIES = ("llama", "qwen3", "gpt2")


def _walk(session: Session) -> list[Any]:
    """What a session says after each of some commands."""
    said: list[Any] = []

    def note() -> None:
        said.append(without_cost(session.trace.steps))

    decode_all(session)
    note()
    session.rewind(STEPS // 2)
    decode_all(session)
    note()
    session.force(3, {0: 65, 1: 66})
    decode_all(session)
    note()
    session.read(5)
    said.append(session.trace.steps[5].lens)
    session.switch(0)
    session.rewind(2)
    session.step({1: 70})
    session.read(1)
    said.append(session.trace.steps[1].lens)
    session.step()
    note()
    session.restart(context="both")
    decode_all(session)
    note()
    session.set_variants(["drop:mlp=[3]"])
    decode_all(session)
    note()
    return said


@pytest.mark.parametrize("family", FAMILIES)
def test_graph_and_eager_go_the_same_ways(folders, family: str, device: str) -> None:
    found = []
    for graphs in (True, False):
        with open_tiny(folders[family], device, graphs=graphs) as session:
            found.append(_walk(session))
    assert found[0] == found[1]


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_rewind_and_a_branch_decode_what_a_fresh_session_does(
    folders, family: str, graphs: bool, device: str
) -> None:
    with open_tiny(folders[family], device, graphs=graphs) as session:
        first = without_cost(decode_all(session))
        session.rewind(4)
        session.read(2)
        assert without_cost(decode_all(session)) == first
        session.force(4, {0: 65})
        branch = without_cost(decode_all(session))
        session.switch(0)
        assert without_cost(session.trace.steps) == first
    with open_tiny(folders[family], device, graphs=graphs) as fresh:
        for number in range(STEPS):
            fresh.step({0: 65} if number == 4 else None)
        assert without_cost(fresh.trace.steps) == branch
        assert lane_tokens(fresh.trace.steps)[4] == 65


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.8, "seed": 3}])
def test_steps_ahead_change_no_number(
    folders, options: dict[str, Any], graphs: bool, device: str
) -> None:
    with open_tiny(folders["llama"], device, graphs=graphs, **options) as session:
        expected = without_cost(decode_all(session))
        session.rewind(0)
        while session.finished is None:
            session.step(ahead=True)
        assert without_cost(session.trace.steps) == expected
        # What was begun ahead of a command is not taken for what follows it.
        session.rewind(3)
        session.step(ahead=True)
        session.force(2, {1: 65})
        session.switch(0)
        session.rewind(4)
        session.step(ahead=True)
        session.read(2)
        assert without_cost(decode_all(session)) == expected
        # Of as many steps as another branch has, what was begun ahead is not that branch's.
        session.force(3, {0: 65})
        branch = session.trace.branch
        session.switch(0)
        session.rewind(3)
        session.step(ahead=True)
        session.switch(branch)
        steps = without_cost(decode_all(session))
        session.rewind(4)
        assert without_cost(decode_all(session)) == steps
