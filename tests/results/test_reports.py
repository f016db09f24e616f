"""Markdown and HTML of an evaluation: complete, well formed and safe."""

import re
import shlex
from typing import Any

import msgspec
import pytest
from prunetui.engine.options import Options
from prunetui.engine.results.comparison import compare
from prunetui.engine.results.export.facts import command
from prunetui.engine.results.export.html import MOST_CHARACTERS, MOST_FLIPS, to_html
from prunetui.engine.results.export.html_chart import (
    DISTANCES,
    LEFT,
    RIGHT,
    WIDTH,
    drift_chart,
    score_chart,
)
from prunetui.engine.results.export.markdown import to_markdown
from prunetui.engine.results.export.report_tables import overview, tables
from prunetui.engine.results.item_measures import flip
from prunetui.engine.results.records import Settings
from prunetui.engine.results.results import Results
from prunetui.engine.results.table import legend, notes, sections
from prunetui.engine.trace import figures
from prunetui.engine.trace.printable import visible

from ..support.html import Page
from ..support.results import make_results
from ..support.traces import HOSTILE

RESULTS = make_results(items=12)
COMPARISONS = compare(RESULTS)


def unescaped(markdown: str) -> str:
    return markdown.replace("`", "")


def test_markdown_has_every_figure_in_a_table_that_is_well_formed() -> None:
    text = to_markdown(RESULTS)
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    for comparison in COMPARISONS:
        for section in sections(comparison):
            for cell in comparison.cells:
                figures_of_cell = [column.text(cell) for column in section.columns]
                assert any(
                    row[0] == f"`{cell.name}`" and "|".join(figures_of_cell) in "|".join(row)
                    for row in cells
                )
        for note in notes(comparison):
            assert note in unescaped(text)
    for clause in legend(COMPARISONS):
        assert f"- {clause}" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({line.count("|") for line in block.splitlines()}) == 1
    for fact in ("tiny, llama", "float32 on cpu", "the first 12 items", "8 texts together"):
        assert fact in text
    for fact in ("1e-05 nats", "lm-eval 0.4.13", "a note on all", "L2-normalised"):
        assert fact in text


def test_lanes_are_described_with_what_they_drop() -> None:
    for text in (to_markdown(RESULTS), to_html(RESULTS)):
        assert "attention dropped in layers" in text
        row = next(line for line in text.splitlines() if "drop:attn=1" in line)
        assert re.search(r"drop:attn=1\W+.*drop:attn=1\W.*\b1\b", row)


def test_the_overview_has_a_column_for_each_group_or_single_task() -> None:
    heads, rows = overview(COMPARISONS)
    assert heads == [
        "choice acc ↑",
        "likelihood perplexity ↓",
        "generation exact_match,strict-match ↑",
        "retrieval ndcg_at_10 ↑",
    ]
    outer = [each for each in COMPARISONS if each.name != "options"]
    for lane, (name, *cells) in enumerate(rows):
        assert name == RESULTS.header.lanes[lane].name
        for comparison, cell in zip(outer, cells, strict=True):
            score = comparison.cells[lane].scores[0]
            if lane == 0:
                assert cell == figures.score(score.value)
            else:
                mark = "*" if score.significant else ""
                difference = figures.score_difference(score.delta)
                assert cell == f"{figures.score(score.value)} ({difference}{mark})"


def test_each_other_metric_has_a_table_of_its_own() -> None:
    options = next(each for each in COMPARISONS if each.name == "options")
    (untitled, heads, _), (label, other_heads, _) = tables(options)
    assert (untitled, label) == ("", "acc_norm ↑")
    assert {"KL", "KL opt.", "agree"} < {*heads}
    assert "KL" not in other_heads


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(), ""),
        (Settings(tasks=("boolq", "rte"), limit=5), "--tasks boolq,rte --limit 5"),
        (Settings(tasks=("a,b.yaml", "rte")), "--tasks a,b.yaml --tasks rte"),
        (
            Settings(apply_chat_template=True, num_fewshot=0, pooling="mean"),
            "--num-fewshot 0 --apply-chat-template --pooling mean",
        ),
        (Settings(instruction="q: ", batch_size=1), "--batch-size 1 --instruction 'q: '"),
    ],
)
def test_the_command_evaluates_the_same_again(settings: Settings, words: str) -> None:
    options = Options(model="m m", variants=("drop:attn=4",), graphs=False)
    header = msgspec.structs.replace(RESULTS.header, options=options, settings=settings)
    expected = ["prunetui", "eval", "--model", "m m", "--variant", "drop:attn=4", "--no-graphs"]
    assert shlex.split(command(header)) == expected + shlex.split(words)
    results = Results(header, RESULTS.items, RESULTS.ends)
    assert command(header) in to_markdown(results)
    assert command(header) in Page(to_html(results)).text


# -- the page -------------------------------------------------------------------------------------


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    page = Page(to_html(RESULTS))
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not {"src", "href", "style", "onclick", "onload"} & set(page.attributes)
    # A chart of scores and one of drift for each of four tasks.
    assert page.tags.count("svg") == 8
    for comparison in COMPARISONS:
        for section in sections(comparison):
            for cell in comparison.cells:
                assert "".join(column.text(cell) for column in section.columns) in page.text
        for note in notes(comparison):
            assert note in page.text
    for clause in legend(COMPARISONS):
        assert clause in page.text


def test_the_page_shows_what_each_lane_lost() -> None:
    items = [
        msgspec.structs.replace(item, question="long " * 200 if item.index == 0 else item.question)
        for item in make_results(items=30).items["options"]
    ]
    whole = make_results(items=30, kinds=["options"])
    page = Page(to_html(Results(whole.header, {"options": items}, whole.ends)))
    metric = whole.header.tasks[0].metrics[0]
    for lane in (1, 2):
        lost = [i for i in items if flip(i.answers[lane], i.answers[0], metric) == "lost"]
        assert len(lost) > MOST_FLIPS
        name = whole.header.lanes[lane].name
        assert f"{name} lost: {MOST_FLIPS} of {len(lost)}" in page.text
        by_kl = sorted(lost, key=lambda i: -(d.kl or 0) if (d := i.drift[lane - 1]) else 0)
        for item in by_kl[:MOST_FLIPS]:
            answer, baseline = item.answers[lane], item.answers[0]
            assert answer.option is not None
            assert baseline.option is not None
            drift = item.drift[lane - 1]
            assert drift is not None
            texts = (item.question[:MOST_CHARACTERS], item.gold)
            texts += (item.options[baseline.option].text, item.options[answer.option].text)
            row = "".join(visible(text, keep="\n\t") for text in texts[1:]) + figures.kl(drift.kl)
            assert row in page.text
    assert "long " * 81 not in page.text


def marks(svg: str, tag: str) -> list[dict[str, str]]:
    """Attributes of each element of a kind."""
    bodies = re.findall(f"<{tag} ([^>]*)", svg)
    return [dict(re.findall(r'([\w-]+)="([^"]*)"', body)) for body in bodies]


def axis_ends(svg: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Place and value of the first and the last label below the axis."""
    labels = re.findall(r'<text x="([\d.]+)" y="\d+" text-anchor="middle">([^<]+)', svg)
    (x0, low), (x1, high) = labels[0], labels[-1]
    return (float(x0), float(low.strip("≤ "))), (float(x1), float(high))


def test_a_score_and_its_interval_stand_at_their_place() -> None:
    for comparison in COMPARISONS:
        svg = score_chart(comparison)
        (x0, low), (x1, high) = axis_ends(svg)

        def value_at(x: str, x0=x0, low=low, x1=x1, high=high) -> float:
            return low + (float(x) - x0) * (high - low) / (x1 - x0)

        tolerance = (high - low) / (x1 - x0) * 0.2
        scores = [cell.scores[0] for cell in comparison.cells]
        circles = [value_at(mark["cx"]) for mark in marks(svg, "circle")]
        assert circles == pytest.approx([score.value for score in scores], abs=tolerance)
        baseline = scores[0].value
        assert baseline is not None
        lines = [mark["d"] for mark in marks(svg, "path") if mark["class"] == "line kl"]
        intervals = [score.interval for score in scores if score.interval]
        assert len(lines) == len(intervals)
        for line, interval in zip(lines, intervals, strict=True):
            left, right = re.findall(r"[\d.]+(?=,)|(?<=H)[\d.]+", line)
            assert value_at(left) == pytest.approx(baseline + interval[0], abs=tolerance)
            assert value_at(right) == pytest.approx(baseline + interval[1], abs=tolerance)
        (dashed,) = [mark["d"] for mark in marks(svg, "path") if mark["class"] == "diverges"]
        assert value_at(dashed[1:].split(",")[0]) == pytest.approx(baseline, abs=tolerance)


def test_a_distance_stands_at_its_place_on_a_log_scale() -> None:
    for comparison in COMPARISONS:
        svg = drift_chart(comparison)
        (x0, low), (x1, high) = axis_ends(svg)
        circles = marks(svg, "circle")
        for distance in DISTANCES:
            values = [v for cell in comparison.cells if (v := distance.of(cell)) is not None]
            drawn = [
                low * (high / low) ** ((float(mark["cx"]) - x0) / (x1 - x0))
                for mark in circles
                if mark["class"] == distance.style
            ]
            assert drawn == pytest.approx(values, rel=0.01)
        assert len(circles) > 1


def test_charts_without_numbers_are_left_out_and_extreme_ones_stay_inside() -> None:
    empty = compare(Results(RESULTS.header))
    assert {score_chart(each) + drift_chart(each) for each in empty} == {""}
    assert Page(to_html(Results(RESULTS.header))).open == []
    assert "n/a" not in to_markdown(Results(RESULTS.header))
    for values in ((0.0, 0.0), (1e-150, 1e150), (-1e150, 5.0), (1e15, 1e15 + 1), (0.1, 0.1)):
        items = [
            msgspec.structs.replace(
                item,
                answers=[
                    msgspec.structs.replace(answer, scores={"acc,none": values[lane > 0]})
                    for lane, answer in enumerate(item.answers)
                ],
            )
            for item in RESULTS.items["options"]
        ]
        results = Results(RESULTS.header, {"options": items})
        for comparison in compare(results):
            for mark in marks(score_chart(comparison), "circle"):
                assert LEFT <= float(mark["cx"]) <= WIDTH - RIGHT


def test_prompts_without_metrics_have_drift_alone() -> None:
    whole = make_results(kinds=["generation"])
    task = msgspec.structs.replace(whole.header.tasks[0], metrics=[])
    header = msgspec.structs.replace(whole.header, tasks=[task])
    results = Results(header, whole.items, whole.ends)
    text = to_markdown(results)
    assert "## Scores" not in text
    assert "KL local" in text
    page = Page(to_html(results))
    assert page.tags.count("svg") == 1
    assert page.tags.count("details") == 0


HOSTILE_TEXTS = [*HOSTILE, "</td></table><script>alert(1)</script>", "``` | ` <i>", '"><img src=x>']


def hostile(text: str) -> Results:
    """An evaluation that has the text wherever a file can have one."""
    whole = make_results(items=6)
    changes: dict[str, Any] = {"name": text, "group": text, "notes": [text], "version": text}
    tasks = [
        msgspec.structs.replace(task, **changes | {"name": f"{text}{task.name}"})
        for task in whole.header.tasks
    ]
    metric = msgspec.structs.replace(tasks[0].metrics[0], name=text, filter=text)
    tasks[0] = msgspec.structs.replace(tasks[0], metrics=[metric])
    lanes = [
        msgspec.structs.replace(lane, name=text, recipe=text, pattern=text, sparsity=0.5)
        for lane in whole.header.lanes
    ]
    model = msgspec.structs.replace(whole.header.model, name=text, dtype=text, device=text)
    header = msgspec.structs.replace(
        whole.header,
        model=model,
        lanes=lanes,
        tasks=tasks,
        notes=[text],
        created=text,
        versions={text: text},
        settings=Settings(instruction=text, tasks=(text,)),
        options=Options(model=text),
    )
    items = {}
    for before, task in zip(whole.header.tasks, tasks, strict=True):
        items[task.name] = [
            msgspec.structs.replace(
                item,
                task=task.name,
                question=text,
                gold=text,
                answers=[
                    msgspec.structs.replace(
                        answer,
                        text=text,
                        scores=answer.scores | {metric.key: float(lane == 0)},
                    )
                    for lane, answer in enumerate(item.answers)
                ],
            )
            for item in whole.items[before.name]
        ]
    return Results(header, items)


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_hostile_texts_are_harmless(text: str) -> None:
    results = hostile(text)
    html, markdown = to_html(results), to_markdown(results)
    page = Page(html)
    assert page.open == []
    assert not {"script", "img", "i"} & {*page.tags}
    assert {"src", "onclick"}.isdisjoint(page.attributes)
    for content in (html, markdown):
        assert all(visible(character, keep="\n\t") == character for character in content)
    for block in re.findall(r"(?:^\|.*\n)+", markdown, re.M):
        assert len({line.count("|") for line in block.splitlines()}) == 1
