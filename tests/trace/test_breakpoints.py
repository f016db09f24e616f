"""Breakpoints: what parses, what is refused, and where decoding stops."""

import operator

import msgspec
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.trace.analysis.breakpoints import parse_breakpoint
from prunetui.engine.trace.records import Step

from ..support.traces import make_header, make_step

HEADER = make_header()


def hits(text: str, steps: list[Step]) -> list[int]:
    condition = parse_breakpoint(text, HEADER)
    return [step.step for step in steps if condition.hit(steps, step.step)]


@pytest.fixture
def steps() -> list[Step]:
    return [make_step(number) for number in range(20)]


@pytest.mark.parametrize(
    ("sign", "compare"),
    [("<", operator.lt), ("<=", operator.le), (">", operator.gt), (">=", operator.ge)],
)
def test_a_measure_is_compared(steps: list[Step], sign: str, compare) -> None:
    first = steps[9].drift[0]
    assert first is not None
    limit = first.cos_h
    assert limit is not None
    expected = [s.step for s in steps if (d := s.drift[0]) and compare(d.cos_h, limit)]
    assert 0 < len(expected) < 20
    assert hits(f"lane 1 cos_h {sign} {limit!r}", steps) == expected


def test_without_a_lane_any_variant_may_meet_it(steps: list[Step]) -> None:
    one, two = (hits(f"lane {lane} kl>2", steps) for lane in (1, 2))
    assert hits("kl > 2", steps) == sorted({*one, *two})
    assert one != two


def test_it_says_what_is_so(steps: list[Step]) -> None:
    value = steps[9].drift[1]
    assert value is not None
    assert parse_breakpoint("lane 2 kl >= 0", HEADER).hit(steps, 9) == (
        f"kl of drop:mlp=1 is {value.kl:.4g} nats"
    )
    assert parse_breakpoint("lane 2 cos_h >= 0", HEADER).hit(steps, 9) == (
        f"cos_h of drop:mlp=1 is {value.cos_h:.4g}"
    )
    assert hits("lane 1 differs", steps) == [*range(4, 20)]
    assert hits("differs", steps) == [*range(4, 20)]
    assert hits("lane 0 entropy >= 1", steps) == [*range(20)]


def test_local_drift_is_looked_at_where_there_is_some(steps: list[Step]) -> None:
    assert hits("local.kl >= 0", steps) == []
    both = [msgspec.structs.replace(step, local=step.drift) for step in steps]
    assert hits("local.kl > 2", both) == hits("kl > 2", steps)


def test_a_value_that_is_not_finite_meets_nothing(steps: list[Step]) -> None:
    drift = [msgspec.structs.replace(d, kl=None) for d in steps[0].drift if d]
    assert hits("kl >= 0", [msgspec.structs.replace(steps[0], drift=drift)]) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no condition"),
        ("kl", "'kl' is no condition"),
        ("kl > five", "'five' is no number"),
        ("kl > nan", "'nan' is no number"),
        ("kl > 1e999", "'1e999' is no number"),
        ("speed > 5", "there is no measure speed; there are cos_h"),
        ("local.entropy > 5", "there is no measure entropy"),
        ("lane 3 kl > 5", "there is no lane 3; lanes are 0 to 2"),
        ("lane 0 kl > 5", "lane 0 is the baseline"),
    ],
)
def test_what_cannot_be_read_gets_a_sentence(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_breakpoint(text, HEADER)
