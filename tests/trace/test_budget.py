"""Figures of whole lanes, of numbers dropped over prompts, and the levels that they keep."""

import csv
import json
import math
from collections.abc import Sequence
from io import StringIO

import msgspec
import pytest
from prunetui.engine.options import Options
from prunetui.engine.trace.analysis.budget import (
    Levels,
    Measured,
    NumberFigures,
    judge,
    summarize_budget,
)
from prunetui.engine.trace.analysis.lane_figures import LaneFigures, dropped_counts, lane_figures
from prunetui.engine.trace.export.budget_files import COLUMNS, BudgetFile, to_csv, to_json
from prunetui.engine.trace.records import Header, Lane
from prunetui.engine.trace.trace import Trace

from ..support.steps import present
from ..support.traces import make_header, make_trace, part_broken, with_local


def figures(
    kl: float | None = 0.5,
    steps: int = 10,
    first: int | None = 3,
    *,
    tie: bool = False,
    collapse: int | None = None,
    not_comparable: int = 0,
) -> LaneFigures:
    return LaneFigures(kl, steps, not_comparable, first, tie, collapse)


def over_prompts(*every: LaneFigures) -> NumberFigures:
    (number,) = summarize_budget(Measured(0, prompt, one) for prompt, one in enumerate(every))
    return number


def test_a_lane_is_measured_on_the_baselines_tokens_where_they_are() -> None:
    free = make_trace(20)
    both = with_local(free)
    for trace, divisor in ((free, 1), (both, 4)):
        for lane in (1, 2):
            kls = [present(present(step.drift_of(lane)).kl) for step in free.steps]
            found = lane_figures(trace.header, trace.steps, lane)
            assert found.kl == pytest.approx(math.fsum(kls) / divisor / 20, rel=1e-12)
            assert found == LaneFigures(found.kl, 20, 0, 4 * lane, False, None)
    # A tie, and steps of the lane that are not numbers.
    quiet = msgspec.structs.replace(free.header, noise_floor=1.0)
    assert lane_figures(quiet, free.steps, 1).tie
    broken = part_broken(10, of=(6, 7, 9))
    found = lane_figures(broken.header, broken.steps, 1)
    assert (found.steps, found.not_comparable) == (7, 3)
    nothing = lane_figures(free.header, [], 1)
    assert nothing == LaneFigures(None, 0, 0, None, False, None)


def test_a_lane_without_a_text_of_its_own_does_not_collapse() -> None:
    trace = Trace(msgspec.structs.replace(make_header(1), context="free"))
    for step in make_trace(60, 1).steps:
        own = msgspec.structs.replace(present(step.lanes[1]), token=7)
        trace.append(msgspec.structs.replace(step, lanes=[step.lanes[0], own]))
    assert lane_figures(trace.header, trace.steps, 1).collapse is not None
    forced = msgspec.structs.replace(trace.header, context="forced")
    assert lane_figures(forced, trace.steps, 1).collapse is None


def with_recipes(*recipes: tuple[str, Sequence[int], Sequence[int]]) -> Header:
    lanes = [
        Lane(name=recipe, recipe=recipe, dropped_attention=[*attention], dropped_mlp=[*mlp])
        for recipe, attention, mlp in recipes
    ]
    return msgspec.structs.replace(make_header(0), lanes=[make_header(0).lanes[0], *lanes])


def test_lanes_are_a_series_where_only_the_number_differs() -> None:
    control, four = ("control", [], []), ("drop:attn=4", range(4), [])
    eight = ("drop:attn=[1,2,3,4,5,6,7,8]", range(1, 9), [])
    block = ("drop:block=2,iterative", [1, 2], [1, 2])
    assert dropped_counts(with_recipes(eight, control, four)) == [8, 0, 4]
    assert dropped_counts(with_recipes(block)) == [4]
    for others in (
        [("drop:mlp=2", [], [1, 2])],
        [("drop:attn=4,iterative", range(5), [])],
        [("drop:attn=[3,4,5,6]", range(3, 7), [])],
        [("wanda:0.5+drop:attn=1", [1], [])],
    ):
        assert dropped_counts(with_recipes(four, *others)) is None
    assert dropped_counts(with_recipes(control)) is None
    assert dropped_counts(with_recipes()) is None
    assert dropped_counts(with_recipes(("drop:attn=1+wanda:0.5", [1], []))) is None
    sparse = msgspec.structs.replace(with_recipes(four).lanes[1], sparsity=0.5)
    header = with_recipes(four)
    assert dropped_counts(msgspec.structs.replace(header, lanes=[header.lanes[0], sparse])) is None


def test_means_are_over_tokens_and_steps_are_medians() -> None:
    assert over_prompts(
        figures(kl=0.5, steps=10, first=9, collapse=40),
        figures(kl=0.1, steps=30, first=None),
        figures(kl=None, steps=0, first=2, collapse=20, not_comparable=3),
        figures(kl=0.25, steps=20, first=5, tie=True, collapse=30),
    ) == NumberFigures(
        number=0,
        prompts=4,
        kl=pytest.approx((0.5 * 10 + 0.1 * 30 + 0.25 * 20) / 60),  # pyright: ignore[reportArgumentType]
        tokens=60,
        not_comparable=3,
        divergence=5,
        tie=True,
        never=1,
        collapsed=3,
        collapse=30,
    )
    most_never = over_prompts(figures(first=None), figures(first=1), figures(first=None))
    assert (most_never.divergence, most_never.tie, most_never.never) == (None, False, 2)
    assert over_prompts(figures(kl=None), figures()).kl is None
    assert over_prompts(figures(kl=None, steps=0)).kl is None


def sentences(levels: Levels, *every: Sequence[LaneFigures]) -> list[str]:
    numbers = summarize_budget(
        Measured(number, prompt, one)
        for number, of_number in enumerate(every)
        for prompt, one in enumerate(of_number)
    )
    return [*map(str, judge(numbers, levels))]


def test_a_verdict_is_the_largest_number_below_which_all_keep_the_level() -> None:
    same = figures(kl=0.0, first=None)
    early = figures(kl=0.3, first=4, collapse=30)
    late = figures(kl=0.1, first=16)
    assert sentences(Levels(), [same], [late], [early], [figures(kl=0.05, first=20)]) == [
        "mean local KL(p‖q) under 0.1 nats: none dropped (0 nats); with 1, 0.100 nats; 3 keeps it "
        "again",
        "median first divergent step 16 or later: up to 1 dropped (step 16); with 2, step 4; 3 "
        "keeps it again",
        "at most 5% of the texts collapse: up to 1 dropped (0.0%); with 2, 100.0%; 3 keeps it "
        "again",
    ]
    loose = Levels(kl=1, step=4, collapsed=0.5)
    assert sentences(loose, [same] * 2, [early, late]) == [
        "mean local KL(p‖q) under 1 nats: up to 1 dropped (0.200 nats), the most tried",
        "median first divergent step 4 or later: up to 1 dropped (step 4), the most tried",
        "at most 50% of the texts collapse: up to 1 dropped (50.0%), the most tried",
    ]
    noisy = figures(kl=0.0, first=2, tie=True)
    assert sentences(Levels(), [noisy])[1] == (
        "median first divergent step 16 or later: not even the control, which drops nothing, "
        "keeps it (step ≈ 2)"
    )
    # A mean that leaves steps out keeps no level.
    broken = figures(kl=0.0, steps=7, not_comparable=3)
    assert sentences(Levels(), [same], [broken])[0] == (
        "mean local KL(p‖q) under 0.1 nats: none dropped (0 nats); with 1, not numbers at 3 of 10 "
        "tokens"
    )
    assert sentences(Levels(), [same], [figures(kl=None)])[0].endswith("with 1, n/a")
    assert judge([], Levels()) == []


def test_the_files_have_every_figure() -> None:
    measured = [
        Measured(0, 0, figures(kl=0.0, first=None)),
        Measured(1, 0, figures(kl=0.25, collapse=12)),
    ]
    numbers = summarize_budget(measured)
    budget = BudgetFile(
        kind="attn",
        by="similarity",
        model="tiny",
        options=Options(),
        prompts=["=1+1\x1b[0m"],
        levels=Levels(),
        verdicts=[*map(str, judge(numbers, Levels()))],
        notes=[],
        numbers=numbers,
        measured=measured,
    )
    head, *rows = csv.reader(StringIO(to_csv(budget)))
    assert head == list(COLUMNS)
    assert rows == [
        ['"attn"', '"similarity"', "0", "1", "0.0", "10", "0", "", "0", "1", "0", ""],
        ['"attn"', '"similarity"', "1", "1", "0.25", "10", "0", "3", "0", "0", "1", "12"],
    ]
    assert "\x1b" not in to_json(budget)
    assert msgspec.json.decode(to_json(budget), type=BudgetFile) == budget
    assert json.loads(to_json(budget))["numbers"][1]["collapse"] == 12
