"""Cells of the results table, against formulas written out over made-up items."""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from prunetui.engine.results.comparison import Cell, TaskComparison, compare
from prunetui.engine.results.item_measures import (
    kl_among_options,
    margin,
    near_tie,
    option_probabilities,
)
from prunetui.engine.results.records import Answer, Item, Match, Metric, Task
from prunetui.engine.results.results import Results
from prunetui.engine.results.scores import Score
from prunetui.engine.results.statistics import bootstrap_interval, sign_flip
from prunetui.engine.results.table import notes
from scipy.stats import binomtest

from ..support.evaluations import (
    ACC,
    FLEXIBLE,
    NDCG,
    NOISE_FLOOR,
    PERPLEXITY,
    STRICT,
    make_evaluation,
    make_evaluation_header,
    make_item,
    make_item_drift,
    make_task,
)


@pytest.fixture(scope="module")
def results() -> Results:
    return make_evaluation()


@pytest.fixture(scope="module")
def comparisons(results: Results) -> dict[str, TaskComparison]:
    return {comparison.name: comparison for comparison in compare(results)}


def numbers(results: Results, task: str, lane: int, metric: Metric = ACC) -> np.ndarray:
    return np.array([item.answers[lane].scores[metric.key] for item in results.items[task]])


def mean_over(items: list[Item], number: Callable[[Item], float]) -> float:
    return math.fsum(map(number, items)) / len(items)


def softmax(logprobs: list[float | None]) -> np.ndarray:
    weights = np.exp(np.array(logprobs, dtype=float))
    return weights / weights.sum()


def test_a_group_stands_before_its_tasks(comparisons: dict[str, TaskComparison]) -> None:
    assert list(comparisons) == [
        "additions",
        "mmlu",
        "mmlu_anatomy",
        "mmlu_virology",
        "lambada",
        "gsm8k",
        "prompts",
        "docstrings",
    ]
    mmlu = comparisons["mmlu"]
    assert [task.name for task in mmlu.tasks] == ["mmlu_anatomy", "mmlu_virology"]
    assert (mmlu.group, mmlu.items, mmlu.asked, mmlu.total) == (True, 9, 9, 17)
    assert not comparisons["mmlu_anatomy"].group
    assert comparisons["gsm8k"].truncated == 1


@pytest.mark.parametrize("lane", [0, 1, 2, 3])
@pytest.mark.parametrize("task", ["additions", "lambada", "gsm8k", "docstrings"])
def test_scores(
    results: Results, comparisons: dict[str, TaskComparison], task: str, lane: int
) -> None:
    metric = comparisons[task].metrics[0]
    own, baseline = (numbers(results, task, n, metric) for n in (lane, 0))
    score = comparisons[task].cells[lane].main
    assert score is not None
    assert score.metric == metric
    assert score.items == len(own)
    assert score.value == pytest.approx(own.mean(), abs=1e-15)
    assert score.stderr == pytest.approx(own.std(ddof=1) / len(own) ** 0.5, abs=1e-15)
    if lane == 0:
        assert (score.delta, score.interval, score.p, score.test) == (None,) * 4
        assert (score.lost, score.gained) == (None, None)
        return
    assert score.delta == pytest.approx((own - baseline).mean(), abs=1e-15)
    assert score.interval == bootstrap_interval([own - baseline], [1.0])
    if metric == NDCG:
        assert (score.test, score.lost, score.gained) == ("permutation", None, None)
        assert score.p == sign_flip(own - baseline)
    else:
        lost, gained = int((own < baseline).sum()), int((own > baseline).sum())
        assert (score.test, score.lost, score.gained) == ("McNemar", lost, gained)
        expected = binomtest(lost, lost + gained).pvalue if lost + gained else 1
        assert score.p == pytest.approx(expected, rel=1e-12)


def test_a_lower_metric_is_won_by_falling() -> None:
    errors = Metric(name="error", higher_is_better=False)
    score = only_score(errors, [(0.0, 1.0), (0.0, 1.0), (1.0, 0.0)])
    assert (score.lost, score.gained, score.delta) == (2, 1, pytest.approx(1 / 3))


def only_score(metric: Metric, pairs: list[tuple[Any, Any]], **fields: Any) -> Score:
    """Score of the variant in a task with these scores of baseline and variant."""
    task = make_task("made", "options", len(pairs), [metric], **fields)
    answers = [[Answer(scores={metric.key: n}) for n in pair] for pair in pairs]
    score = compare(one_task(task, answers))[-1].cells[1].main
    assert score is not None
    return score


def one_task(task: Task, answers: list[list[Answer]], **fields: Any) -> Results:
    results = Results(make_evaluation_header([task], ("drop:mlp=8",)))
    base = make_item(task, 0, ("drop:mlp=8",))
    results.items[task.name] = [
        msgspec.structs.replace(base, index=n, answers=each, **fields)
        for n, each in enumerate(answers)
    ]
    return results


@pytest.mark.parametrize("hole", [None, "N/A", [1, 2], math.nan])
def test_an_item_without_a_number_does_not_count_in_either_lane(hole: Any) -> None:
    score = only_score(ACC, [(1.0, 0.0), (hole, 1.0), (1.0, hole), (0.0, 1.0), (1.0, 1)])
    assert (score.items, score.value, score.delta) == (3, pytest.approx(2 / 3), 0)
    assert (score.lost, score.gained) == (1, 1)
    nothing = only_score(ACC, [(hole, 1.0)])
    assert (nothing.items, nothing.value, nothing.stderr, nothing.delta) == (0, None, None, None)
    assert (nothing.p, nothing.interval, nothing.test, nothing.lost) == (None,) * 4


def test_a_metric_is_right_or_wrong_only_if_it_is_in_all_lanes() -> None:
    score = only_score(NDCG, [(1.0, 0.0), (0.0, 0.5), (0.0, 0.0)])
    assert (score.test, score.lost) == ("permutation", None)


def test_one_item_has_no_error_and_no_interval() -> None:
    score = only_score(ACC, [(1.0, 0.0)])
    assert (score.value, score.delta, score.lost, score.p) == (0, -1, 1, 1)
    assert (score.stderr, score.interval) == (None, None)


def test_other_metrics_follow(comparisons: dict[str, TaskComparison]) -> None:
    cell = comparisons["gsm8k"].cells[2]
    assert [score.metric for score in cell.scores] == [STRICT, FLEXIBLE]
    assert [score.lost for score in cell.scores] == [4, 2]
    assert comparisons["prompts"].cells[2].scores == []
    assert comparisons["prompts"].cells[2].main is None


def test_a_metric_that_is_no_mean_is_there_at_the_end(results: Results) -> None:
    comparison = next(c for c in compare(results) if c.name == "lambada")
    scores = [cell.scores[1] for cell in comparison.cells]
    assert [score.metric for score in scores] == [PERPLEXITY] * 4
    assert [score.value for score in scores] == [10, 12, 20, 10]
    assert [score.delta for score in scores] == [None, 2, 10, 0]
    assert all((s.stderr, s.interval, s.p, s.test, s.lost) == (None,) * 5 for s in scores)
    running = Results(results.header, dict(results.items))
    comparison = next(c for c in compare(running) if c.name == "lambada")
    assert not comparison.complete
    assert [cell.scores[1].value for cell in comparison.cells] == [None] * 4
    assert [cell.scores[1].delta for cell in comparison.cells] == [None] * 4


@pytest.mark.parametrize("lane", [1, 2])
def test_a_group_is_the_mean_over_its_items(
    results: Results, comparisons: dict[str, TaskComparison], lane: int
) -> None:
    from lm_eval.api.metrics import aggregate_subtask_metrics, mean_stderr, pooled_sample_stderr

    own = [numbers(results, task, lane) for task in ("mmlu_anatomy", "mmlu_virology")]
    baseline = [numbers(results, task, 0) for task in ("mmlu_anatomy", "mmlu_virology")]
    score = comparisons["mmlu"].cells[lane].main
    assert score is not None
    assert score.value == pytest.approx(aggregate_subtask_metrics([s.mean() for s in own], [6, 3]))
    errors = [mean_stderr(list(values)) for values in own]
    assert score.stderr == pytest.approx(pooled_sample_stderr(errors, [6, 3]), abs=1e-15)
    differences = [a - b for a, b in zip(own, baseline, strict=True)]
    assert score.interval == bootstrap_interval(differences, [6 / 9, 3 / 9])
    assert score.test == "McNemar"
    assert score.lost == sum(int((d < 0).sum()) for d in differences)


def test_a_group_may_be_the_mean_over_its_tasks(results: Results) -> None:
    from lm_eval.api.metrics import (
        aggregate_subtask_metrics,
        mean_stderr,
        unweighted_mean_stderr,
    )

    tasks = [msgspec.structs.replace(t, weight_by_size=False) for t in results.header.tasks]
    header = msgspec.structs.replace(results.header, tasks=tasks)
    comparison = compare(Results(header, results.items, results.ends))[1]
    own = [numbers(results, task, 2) for task in ("mmlu_anatomy", "mmlu_virology")]
    changes = [
        values - numbers(results, task, 0)
        for values, task in zip(own, ("mmlu_anatomy", "mmlu_virology"), strict=True)
    ]
    score = comparison.cells[2].main
    assert score is not None
    expected = aggregate_subtask_metrics([s.mean() for s in own], [6, 3], weight_by_size=False)
    assert score.value == pytest.approx(expected)
    assert score.delta == pytest.approx(np.mean([d.mean() for d in changes]))
    assert score.stderr == pytest.approx(
        unweighted_mean_stderr([mean_stderr(list(s)) for s in own])
    )
    # Items of the small task count twice, so counting flips does not test this mean.
    assert score.test == "permutation"
    assert score.p == sign_flip(np.concatenate([changes[0] / 12, changes[1] / 6]))
    assert (score.lost, score.gained) == (3, 2)


def test_tasks_of_two_kinds_make_no_group(results: Results) -> None:
    tasks = [msgspec.structs.replace(task, group="all") for task in results.header.tasks]
    header = msgspec.structs.replace(results.header, tasks=tasks)
    assert not any(c.group for c in compare(Results(header, results.items)))


def test_what_runs_still_compares_the_items_that_are_there(results: Results) -> None:
    items = {"mmlu_anatomy": results.items["mmlu_anatomy"][:4], "gsm8k": []}
    running = {c.name: c for c in compare(Results(results.header, items))}
    mmlu = running["mmlu"]
    assert (mmlu.items, mmlu.asked, mmlu.complete) == (4, 9, False)
    score, own = mmlu.cells[2].main, numbers(results, "mmlu_anatomy", 2)[:4]
    assert score is not None
    assert (score.items, score.value) == (4, own.mean())
    for name in ("gsm8k", "docstrings"):
        for cell in running[name].cells:
            assert [score.value for score in cell.scores] == [None] * len(cell.scores)
            assert measures(cell) == {}


def measures(cell: Cell) -> dict[str, Any]:
    """Fields of the drift and the answers that are defined."""
    names = set(Cell.__dataclass_fields__) - {"lane", "name", "control", "scores", "missing"}
    return {
        name: value for name in names if (value := getattr(cell, name)) is not None and value != 0
    }


def test_drift_is_a_mean_over_items(
    results: Results, comparisons: dict[str, TaskComparison]
) -> None:
    items = results.items["gsm8k"]
    for lane in (1, 2):
        cell = comparisons["gsm8k"].cells[lane]
        for field in ("kl", "cos_h", "cos_z", "cos_p"):

            def number(item: Item, field: str = field, lane: int = lane) -> float:
                return getattr(item.drift[lane - 1], field)

            assert getattr(cell, field) == pytest.approx(mean_over(items, number), rel=1e-14)
    control = comparisons["gsm8k"].cells[3]
    assert (control.kl, control.cos_h, control.kl_local, control.divergent) == (0, 1, 0, 0)
    assert control.control
    assert not comparisons["gsm8k"].cells[0].control


def test_what_has_no_number_is_left_out_and_counted(
    results: Results, comparisons: dict[str, TaskComparison]
) -> None:
    # Item 2 of lane 2 has logits that are not numbers.
    cell = comparisons["additions"].cells[2]
    assert cell.missing == {"kl": 1, "cos_z": 1, "cos_p": 1}
    others = [item for item in results.items["additions"] if item.index != 2]
    assert cell.kl == pytest.approx(mean_over(others, lambda item: item.drift[1].kl))  # type: ignore
    assert comparisons["additions"].cells[1].missing == {}


def test_a_mean_of_no_numbers_is_none() -> None:
    task = make_task("made", "options", 2, [ACC])
    lost = make_item_drift(1, 0.5, not_comparable=True, kl=None, cos_z=None, cos_p=None)
    answers = [[Answer(scores={ACC.key: 1}), Answer(scores={ACC.key: 1})]] * 2
    cell = compare(one_task(task, answers, drift=[lost]))[0].cells[1]
    assert (cell.kl, cell.cos_p) == (None, None)
    assert cell.cos_h == lost.cos_h
    assert cell.missing["kl"] == 2
    # A task that has no such token has nothing to miss.
    for drift in ([], [None]):
        cell = compare(one_task(task, answers, drift=drift))[0].cells[1]
        assert (cell.kl, cell.cos_h) == (None, None)
        assert "kl" not in cell.missing


def test_kl_among_options_is_of_their_softmax(
    results: Results, comparisons: dict[str, TaskComparison]
) -> None:
    items = results.items["additions"]
    for lane in (1, 2, 3):

        def kl(item: Item, lane: int = lane) -> float:
            p, q = (softmax(item.answers[n].logprobs) for n in (0, lane))
            return float((p * np.log(p / q)).sum())

        expected = mean_over(items, kl)
        cell = comparisons["additions"].cells[lane]
        assert cell.kl_options == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert comparisons["lambada"].cells[2].kl_options is None


def test_kl_among_options_far_apart() -> None:
    near, far = Answer(logprobs=[-1.0, -2.0]), Answer(logprobs=[-5000.0, -1.0])
    p = softmax([-1.0, -2.0])
    # q of the first option is 0 in floats; its logarithm is -4999.
    expected = p[0] * (np.log(p[0]) + 4999) + p[1] * np.log(p[1])
    assert kl_among_options(far, near) == pytest.approx(expected)
    assert option_probabilities(far) == [0, 1]
    assert kl_among_options(near, near) == 0
    assert option_probabilities(near) == pytest.approx(p)


@pytest.mark.parametrize("logprobs", [[], [-1.0], [-1.0, None], [-1.0, -2.0, -3.0]])
def test_kl_among_other_options_is_none(logprobs: list[float | None]) -> None:
    assert kl_among_options(Answer(logprobs=logprobs), Answer(logprobs=[-1.0, -2.0])) is None
    assert kl_among_options(Answer(logprobs=[-1.0, -2.0]), Answer(logprobs=logprobs)) is None


def test_near_ties(results: Results, comparisons: dict[str, TaskComparison]) -> None:
    for name in ("additions", "mmlu_anatomy"):
        for lane in range(4):

            def tie(item: Item, lane: int = lane) -> bool:
                pairs = [sorted(item.answers[n].logprobs)[-2:] for n in (0, lane)]  # type: ignore
                return any(high - low <= NOISE_FLOOR for low, high in pairs)

            expected = sum(map(tie, results.items[name]))
            assert comparisons[name].cells[lane].ties == expected
    # The made-up numbers have ties of the baseline and of a lane alone.
    assert [cell.ties for cell in comparisons["mmlu_anatomy"].cells] == [1, 1, 1, 1]
    assert [cell.ties for cell in comparisons["additions"].cells] == [0, 0, 1, 0]
    assert comparisons["gsm8k"].cells[1].ties is None
    # Read one by one, texts have no noise, and rounding of logits still makes options equal.
    assert near_tie(Answer(logprobs=[-1.0, -3.0, -1.0]), 0.0)
    assert not near_tie(Answer(logprobs=[-1.0, -3.0, -1.5]), 0.0)
    assert margin(Answer(logprobs=[-3.0, -1.0, -1.5])) == 0.5
    assert margin(Answer(logprobs=[-3.0])) is None


def test_agreement_is_the_same_option_or_filtered_text(
    results: Results, comparisons: dict[str, TaskComparison]
) -> None:
    for lane in (1, 2, 3):
        same = mean_over(
            results.items["additions"],
            lambda item, lane=lane: item.answers[lane].option == item.answers[0].option,
        )
        assert comparisons["additions"].cells[lane].agreement == pytest.approx(same)
    assert comparisons["lambada"].cells[1].agreement is None
    assert comparisons["docstrings"].cells[1].agreement is None
    task = make_task("made", "generation", 4, [STRICT])

    def answer(text: str, number: str) -> Answer:
        return Answer(text=text, filtered={"strict-match": number, "flexible-extract": text})

    pairs = [("a", "1", "b", "1"), ("a", "1", "a", "1"), ("a", "1", "a", "2"), ("a", "", "b", "")]
    answers = [[answer(*pair[:2]), answer(*pair[2:])] for pair in pairs]
    assert compare(one_task(task, answers))[0].cells[1].agreement == 0.75
    # Prompts have no filter: the whole text counts.
    task = make_task("made", "generation", 4, [])
    assert compare(one_task(task, answers))[0].cells[1].agreement == 0.5


@pytest.mark.parametrize(
    ("steps", "median", "share"),
    [
        ([0, 5, 9], 5, 1.0),
        ([9, 0, 5, 7], 5, 1.0),
        ([3, None, 1, None], 3, 0.5),
        ([3, None, None], None, 1 / 3),
        ([None, None], None, 0.0),
        ([4], 4, 1.0),
    ],
)
def test_the_first_step_by_which_half_of_the_items_diverged(
    steps: list[int | None], median: int | None, share: float
) -> None:
    task = make_task("made", "generation", len(steps), [])
    answers = [[Answer(text="a"), Answer(text="a", divergence=step)] for step in steps]
    baseline, cell = compare(one_task(task, answers))[0].cells
    assert (cell.first_divergence, cell.divergent) == (median, pytest.approx(share))
    assert (baseline.first_divergence, baseline.divergent) == (None, None)


def test_a_text_collapses_only_beyond_the_baselines() -> None:
    """Of four items the lane's text collapses in one, ends in what the baseline's does in one."""
    prose, loop = [*range(100, 130)], [*range(100, 110), *[1, 2] * 20]
    task = make_task("made", "generation", 4, [])
    pairs = [(prose, loop), (loop, loop), (loop, prose), (prose, prose)]
    answers = [
        [Answer(text="", tokens=tokens) for tokens in (baseline, lane)] for baseline, lane in pairs
    ]
    comparison = compare(one_task(task, answers))[0]
    baseline, cell = comparison.cells
    assert (baseline.collapse, baseline.missing) == (0.5, {})
    assert cell.collapse == pytest.approx(1 / 3)
    assert cell.missing["collapse"] == 1
    assert f"{cell.name}: collapse without 1 of 4 items, where there is no number." in notes(
        comparison
    )


def test_kl_local_is_a_mean_over_items(
    results: Results, comparisons: dict[str, TaskComparison]
) -> None:
    expected = mean_over(results.items["gsm8k"], lambda item: item.answers[2].kl or math.nan)
    assert comparisons["gsm8k"].cells[2].kl_local == pytest.approx(expected)
    assert comparisons["gsm8k"].cells[0].kl_local is None


def test_retrieval_compares_the_ten_best() -> None:
    task = make_task("made", "retrieval", 2, [NDCG])

    def answer(ids: str, cosine: float) -> Answer:
        matches = [Match(id=each, similarity=0.5, relevance=0) for each in ids]
        return Answer(scores={NDCG.key: 0.5}, matches=matches, cosine=cosine)

    answers = [
        [answer("abcdefghij", 1), answer("jihgfxyzuv", 0.5)],
        # A corpus of four documents.
        [answer("abcd", 1), answer("dcba", 0.7)],
    ]
    baseline, cell = compare(one_task(task, answers))[0].cells
    assert cell.overlap == pytest.approx((0.5 + 1) / 2)
    assert cell.cosine == pytest.approx(0.6)
    assert (baseline.overlap, baseline.cosine) == (None, None)


def test_a_group_pools_its_items_drift(
    results: Results, comparisons: dict[str, TaskComparison]
) -> None:
    items = [*results.items["mmlu_anatomy"], *results.items["mmlu_virology"]]
    expected = mean_over(items, lambda item: item.drift[0].kl)  # type: ignore
    assert comparisons["mmlu"].cells[1].kl == pytest.approx(expected)
    assert comparisons["mmlu"].cells[1].ties == 1
