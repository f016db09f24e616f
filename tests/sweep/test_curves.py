"""Curves against direct computation, and the sentence on made scores."""

import math

import numpy as np
import pytest
from prunetui.engine.results.records import Metric, Settings
from prunetui.engine.results.statistics import bootstrap_interval
from prunetui.engine.sweep.curves import Curves, find_curves
from prunetui.engine.sweep.families import find_places
from prunetui.engine.sweep.samples import find_studies
from prunetui.engine.sweep.verdicts import judge, sentences

from .made import evaluation, make_task

ITEMS = 60


def right(count: int, items: int = ITEMS) -> list[float]:
    """Scores of which the first ones are right."""
    return [1.0] * count + [0.0] * (items - count)


def curves_of(*evaluations) -> list[Curves]:
    (study,) = find_studies(evaluations)
    return find_curves(study)


# -- families -------------------------------------------------------------------------------------


def test_a_family_is_a_recipe_without_its_number() -> None:
    recipes = ["drop:attn=1", "drop:attn=4", "drop:block=2,consecutive", "wanda:0.3", "control"]
    recipes += ["wanda:2:4", "drop:attn=[1,2]", "magnitude:0.5", "drop:joint=3,iterative"]
    places = find_places(recipes)
    assert {recipe: (p.family, p.number, p.zero) for recipe, p in places.items()} == {
        "drop:attn=1": ("drop:attn", 1, ""),
        "drop:attn=4": ("drop:attn", 4, ""),
        "drop:block=2,consecutive": ("drop:block,consecutive", 2, ""),
        "wanda:0.3": ("wanda", 0.3, ""),
        "magnitude:0.5": ("magnitude", 0.5, ""),
        "drop:joint=3,iterative": ("drop:joint,iterative", 3, ""),
    }
    assert places["wanda:0.3"].axis == "share of weights zeroed"
    assert places["drop:block=2,consecutive"].axis == "layers dropped"


def test_of_several_numbers_the_one_that_varies_most_is_the_familys() -> None:
    both = [f"drop:attn={a}+drop:mlp={m}" for a in (1, 2) for m in (1, 2, 3)]
    fixed = ["drop:attn=1+wanda:0.5", "drop:attn=2+wanda:0.5"]
    places = find_places([*both, *fixed])
    assert places["drop:attn=2+drop:mlp=3"].family == "drop:attn=2+drop:mlp"
    assert places["drop:attn=2+drop:mlp=3"].zero == "drop:attn=2"
    assert places["drop:attn=2+wanda:0.5"].family == "drop:attn+wanda:0.5"
    assert places["drop:attn=2+wanda:0.5"].number == 2


# -- curves ---------------------------------------------------------------------------------------


def test_a_curve_is_the_mean_over_tasks_with_the_paired_interval() -> None:
    rng = np.random.default_rng(1)
    small = [[float(v) for v in rng.integers(0, 2, 20) | (lane == 0)] for lane in range(3)]
    large = [[float(v) for v in rng.integers(0, 2, 50) | (lane == 0)] for lane in range(3)]
    kl = {"a": rng.random((2, 20)).tolist(), "b": rng.random((2, 50)).tolist()}
    recipes = ["drop:attn=4", "drop:attn=2"]
    tasks = [(make_task("a"), small), (make_task("b"), large)]
    (curves,) = curves_of(evaluation(recipes, tasks, kl=kl))
    assert (curves.family, curves.kind, curves.tasks) == ("drop:attn", "options", ["a", "b"])
    assert [point.number for point in curves.score] == [0, 2, 4]
    assert curves.score[0].value == 1.0
    assert curves.score[0].interval is None
    for point, lane in zip(curves.score[1:], (2, 1), strict=True):
        assert point.value == pytest.approx((np.mean(small[lane]) + np.mean(large[lane])) / 2)
        differences = [np.subtract(scores[lane], scores[0]) for scores in (small, large)]
        interval = bootstrap_interval(differences, [0.5, 0.5])
        assert interval is not None
        assert point.delta == pytest.approx(interval)
        assert point.interval == pytest.approx((1 + interval[0], 1 + interval[1]))
        assert point.items == 70
    for point, row in zip(curves.drift["kl"], (1, 0), strict=True):
        assert point.value == pytest.approx((np.mean(kl["a"][row]) + np.mean(kl["b"][row])) / 2)
        columns = [np.array(kl[name][row]) for name in ("a", "b")]
        error = 1.96 * math.sqrt(sum(np.var(c, ddof=1) / len(c) / 4 for c in columns))
        assert point.interval == pytest.approx((point.value - error, point.value + error))
    assert [point.value for point in curves.drift["h"]] == pytest.approx([0.1, 0.1])


def test_a_group_counts_as_one_task_and_weighs_its_own_by_size() -> None:
    scores = [(20, 20, 10), (60, 60, 15), (10, 10, 9)]
    names = [("x", "mmlu"), ("y", "mmlu"), ("z", None)]
    tasks = [
        (make_task(name, group=group), [right(base, items), right(own, items)])
        for (items, base, own), (name, group) in zip(scores, names, strict=True)
    ]
    (curves,) = curves_of(evaluation(["drop:mlp=1"], tasks))
    assert curves.tasks == ["mmlu", "z"]
    assert curves.score[1].value == pytest.approx((25 / 80 + 9 / 10) / 2)


def test_seeds_are_pooled_item_by_item_and_shown() -> None:
    task = make_task("a")
    first, second, third = right(30), right(20), right(10)
    made = [
        evaluation(["drop:attn=1"], [(task, [right(40), own])], seed=seed)
        for seed, own in ((0, first), (1, second), (2, third))
    ]
    (curves,) = curves_of(*made)
    point = curves.score[1]
    assert point.value == pytest.approx(20 / 60)
    assert point.by_seed == {
        0: pytest.approx(0.5),
        1: pytest.approx(1 / 3),
        2: pytest.approx(1 / 6),
    }
    pooled = np.mean([first, second, third], axis=0) - right(40)
    assert point.delta == pytest.approx(bootstrap_interval([pooled], [1.0]))


def test_a_number_that_lacks_a_task_is_left_out() -> None:
    a, b = make_task("a"), make_task("b")
    whole = evaluation(["drop:attn=1"], [(a, [right(50), right(40)]), (b, [right(50), right(40)])])
    part = evaluation(["drop:attn=2"], [(a, [right(50), right(5)])])
    (curves,) = curves_of(whole, part)
    assert [point.number for point in curves.score] == [0, 1]


def test_a_task_that_is_not_complete_or_at_chance_does_not_count() -> None:
    good, guess = make_task("good"), make_task("guess")
    running = make_task("running")
    half = [right(50), right(40)]
    made = evaluation(
        ["drop:attn=1"], [(good, half), (guess, [right(16), right(15)]), (running, half)]
    )
    del made.ends["running"]
    (study,) = find_studies([made])
    assert study.guessable == {"guess": (60, pytest.approx(16 / 60), 0.25)}
    (curves,) = find_curves(study)
    assert curves.score[1].value == pytest.approx(40 / 60)
    assert curves.tasks == ["good", "guess"]


def test_a_kind_in_which_no_loss_could_be_seen_is_drawn_and_not_judged() -> None:
    made = evaluation(["drop:attn=1"], [(make_task("guess"), [right(16), right(15)])])
    (study,) = find_studies([made])
    (curves,) = find_curves(study)
    assert [point.value for point in curves.score] == [16 / 60, 0.25]
    assert judge(curves) is None
    assert sentences([curves]) == []
    (note,) = study.notes
    assert note.startswith(
        "guess: its 60 items do not tell the baseline (0.267) from a guess (0.250)"
    )


def test_scores_of_which_less_is_better_have_no_curve_but_drift_has() -> None:
    metric = Metric(name="perplexity", higher_is_better=False)
    task = make_task("text", "likelihood", metrics=[metric])
    (curves,) = curves_of(evaluation(["drop:attn=1"], [(task, [right(50), right(40)])]))
    assert curves.score == []
    assert [point.value for point in curves.drift["kl"]] == [0.5]


def test_items_without_a_number_do_not_count_and_are_told() -> None:
    own: list[float | None] = [1.0, None, 0.0, 0.0]
    made = evaluation(["drop:attn=1"], [(make_task("a"), [[1.0, 1.0, 1.0, None], own])])
    (curves,) = curves_of(made)
    assert curves.score[1].items == 2
    assert curves.score[1].value == 0.5
    (study,) = find_studies([made])
    (note,) = (note for note in study.notes if "drop" in note)
    assert note.startswith("drop:attn=1: a has no score for 1 of 4 items, where logits")


def test_what_was_asked_otherwise_is_another_study() -> None:
    task = [(make_task("a"), [right(50), right(40)])]
    few, many = (
        evaluation(["drop:attn=1"], task, settings=Settings(num_fewshot=shots)) for shots in (0, 5)
    )
    studies = find_studies([few, many])
    assert len(studies) == 2
    assert "num_fewshot 5" in studies[1].title


def test_a_family_beside_another_drop_begins_at_that_drop() -> None:
    recipes = ["drop:mlp=2", "drop:attn=1+drop:mlp=2", "drop:attn=3+drop:mlp=2"]
    scores = [right(count) for count in (60, 50, 40, 30)]
    curves = {c.family: c for c in curves_of(evaluation(recipes, [(make_task("a"), scores)]))}
    both = curves["drop:attn+drop:mlp=2"]
    assert [(p.number, p.value) for p in both.score] == [(0, 50 / 60), (1, 40 / 60), (3, 0.5)]


# -- sentences ------------------------------------------------------------------------------------


def verdicts(counts: list[int], items: int = ITEMS) -> tuple[float, float | None]:
    """Numbers to which `drop:attn` holds, and at which it gives way, by right items for 0, 1, …"""
    recipes = [f"drop:attn={number}" for number in range(1, len(counts))]
    scores = [right(count, items) for count in counts]
    (curves,) = curves_of(evaluation(recipes, [(make_task("a"), scores)]))
    verdict = judge(curves)
    assert verdict is not None
    return verdict.holds_to, verdict.gives_way_at


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([50, 50, 49, 30, 10], (2, 3)),
        ([50, 30, 50, 50], (0, 1)),
        ([50, 50, 30, 50, 50], (1, 2)),
        ([50, 50, 49, 51], (3, None)),
    ],
    ids=["monotone", "gives way at 1", "not monotone", "never"],
)
def test_it_holds_up_to_the_first_interval_below_zero(counts, expected) -> None:
    assert verdicts(counts) == expected


def test_few_items_do_not_look_like_robustness() -> None:
    """Ten items without a change leave a loss of 0.3 possible; intervals leave half their width."""
    task = make_task("a")
    recipes = ["drop:attn=1", "drop:attn=2"]
    few = evaluation(recipes, [(task, [right(9, 10), right(9, 10), right(9, 10)])])
    assert sentences(curves_of(few)) == [
        "drop:attn: multiple choice holds to 2, the most tried (0.300)"
    ]
    flips = [1.0] * 5 + [0.0] * 5 + right(40, 50)
    scores = [[0.0] * 5 + [1.0] * 5 + right(40, 50), flips, right(0)]
    (curves,) = curves_of(evaluation(recipes, [(task, scores)]))
    low, high = curves.score[1].delta or (math.nan, math.nan)
    assert (high - low) / 2 > 3 / 60
    verdict = judge(curves)
    assert verdict is not None
    assert verdict.unseen == pytest.approx((high - low) / 2)


def test_a_sentence_names_the_kinds_from_the_strongest() -> None:
    recipes = ["drop:attn=1", "drop:attn=2", "drop:attn=4"]
    made = evaluation(
        recipes,
        [
            (make_task("a", "options"), [right(n) for n in (50, 50, 50, 20)]),
            (make_task("b", "generation"), [right(n) for n in (50, 10, 5, 0)]),
            (make_task("c", "retrieval"), [right(n) for n in (50, 50, 50, 50)]),
        ],
    )
    assert sentences(curves_of(made)) == [
        "drop:attn: retrieval holds to 4, the most tried (0.050), multiple choice holds to 2 "
        "(0.050), generation gives way at 1, the least tried"
    ]
