"""CSV and Parquet of an evaluation: every number of the table and of the items, to the bit."""

import csv
import io
import json
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from prunetui.engine.results.comparison import compare
from prunetui.engine.results.export import item_rows, table_rows
from prunetui.engine.results.export.formats import Rows, to_csv, to_parquet
from prunetui.engine.results.item_measures import item_collapse, kl_among_options, margin
from prunetui.engine.results.records import Header
from prunetui.engine.results.results import Results
from prunetui.engine.trace.export.parquet import HEADER_KEY
from prunetui.engine.trace.records import Drift

from ..support.results import make_header, make_results
from ..support.traces import HOSTILE

RESULTS = make_results()


def read_csv(results: Results, rows: Rows) -> list[dict[str, Any]]:
    """Rows as a reader gets them: texts and lists are JSON, as numbers are."""
    read = csv.DictReader(io.StringIO(to_csv(results, rows)))
    return [{key: json.loads(cell) if cell else None for key, cell in row.items()} for row in read]


def read_parquet(results: Results, rows: Rows) -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(to_parquet(results, rows))).to_pylist()


@pytest.mark.parametrize("rows", ["items", "table"])
def test_both_formats_have_the_same_rows(rows: Rows) -> None:
    parquet = read_parquet(RESULTS, rows)
    assert read_csv(RESULTS, rows) == parquet
    columns = table_rows.COLUMNS if rows == "table" else item_rows.columns(RESULTS.header)
    assert [*parquet[0]] == [*columns]


def test_the_table_has_a_row_for_each_task_metric_and_lane() -> None:
    rows = read_parquet(RESULTS, "table")
    comparisons = compare(RESULTS)
    assert [(row["task"], row["lane"], row["metric"], row["filter"]) for row in rows] == [
        (task.name, cell.lane, score.metric.name, score.metric.filter)
        for task in comparisons
        for cell in task.cells
        for score in cell.scores
    ]
    for task in comparisons:
        for cell in task.cells:
            for score in cell.scores:
                row = rows.pop(0)
                interval = score.interval or (None, None)
                assert row["score"] == score.value
                assert (row["stderr"], row["delta"]) == (score.stderr, score.delta)
                assert (row["delta_low"], row["delta_high"]) == interval
                assert (row["p"], row["test"]) == (score.p, score.test)
                assert (row["lost"], row["gained"]) == (score.lost, score.gained)
                assert row["main"] == (score is cell.main)
                assert row["higher_is_better"] == score.metric.higher_is_better
                measures = set(row) & set(vars(cell)) - {"missing", "lane", "name"}
                assert len(measures) == 13
                for name in measures:
                    assert row[name] == getattr(cell, name)
                assert row["missing"] == [f"{key}: {n}" for key, n in cell.missing.items()]
                lane = RESULTS.header.lanes[cell.lane]
                assert (row["name"], row["recipe"]) == (lane.name, lane.recipe)
                assert row["dropped_attention"] == lane.dropped_attention
                assert (row["items"], row["asked"], row["total"]) == (6, 6, 16)
                assert (row["group"], row["complete"]) == (task.group, True)
    assert rows == []


def test_a_task_without_metrics_has_its_drift_in_the_table() -> None:
    header = make_header(kinds=["generation"])
    task = msgspec.structs.replace(header.tasks[0], metrics=[])
    whole = make_results(kinds=["generation"])
    results = Results(msgspec.structs.replace(header, tasks=[task]), whole.items, whole.ends)
    rows = read_parquet(results, "table")
    assert [(row["lane"], row["metric"], row["score"]) for row in rows] == [
        (lane, None, None) for lane in range(3)
    ]
    (comparison,) = compare(results)
    assert [row["kl"] for row in rows] == [cell.kl for cell in comparison.cells]
    assert rows[1]["kl"] is not None
    items = read_parquet(results, "items")
    assert {(row["score"], row["flip"]) for row in items} == {(None, None)}


def test_the_items_have_a_row_for_each_item_and_lane() -> None:
    rows = read_parquet(RESULTS, "items")
    for task in RESULTS.header.tasks:
        for item in RESULTS.items[task.name]:
            for lane, answer in enumerate(item.answers):
                row = rows.pop(0)
                assert (row["task"], row["index"], row["lane"]) == (task.name, item.index, lane)
                assert row["question"] == item.question
                assert row["options"] == [option.text for option in item.options]
                assert (row["gold"], row["gold_option"]) == (item.gold, item.gold_option)
                assert (row["option"], row["logprobs"]) == (answer.option, answer.logprobs)
                assert row["margin"] == margin(answer)
                assert (row["text"], row["divergence"]) == (answer.text, answer.divergence)
                assert row["kl_local"] == answer.kl
                collapse = item_collapse(item, lane)
                assert row["collapse"] == collapse.start
                generated = task.kind == "generation"
                assert row["repeats_as_baseline"] == (collapse.as_baseline if generated else None)
                assert row["cosine"] == answer.cosine
                assert row["matches"] == [match.id for match in answer.matches]
                assert row["relevances"] == [match.relevance for match in answer.matches]
                for other in RESULTS.header.tasks:
                    for metric in other.metrics:
                        value = answer.scores.get(metric.key)
                        number = value if isinstance(value, float) else None
                        assert row[f"score_{metric.key}"] == number
                drift = item.drift[lane - 1] if lane else None
                for name in Drift.__struct_fields__:
                    assert row[name] == getattr(drift, name, None)
                expected = kl_among_options(answer, item.answers[0]) if lane else None
                assert row["kl_options"] == expected
    assert rows == []


def test_the_flips_of_the_items_are_those_of_the_table() -> None:
    rows = read_parquet(RESULTS, "items")
    counts: dict[str, int] = {}
    for comparison in compare(RESULTS):
        for cell in comparison.cells[1:] * (not comparison.group):
            own = [r for r in rows if (r["task"], r["lane"]) == (comparison.name, cell.lane)]
            for name in ("lost", "gained"):
                count = sum(row["flip"] == name for row in own)
                assert cell.main is not None
                assert count == (getattr(cell.main, name) or 0)
                counts[name] = counts.get(name, 0) + count
    assert min(counts.values()) > 0


def test_a_running_evaluation_has_the_rows_that_are_there() -> None:
    part = Results(RESULTS.header, {"options": RESULTS.items["options"][:2]})
    assert len(read_parquet(part, "items")) == 2 * 3
    table = read_parquet(part, "table")
    assert {row["task"]: (row["items"], row["complete"]) for row in table} == {
        "choice": (2, False),
        "options": (2, False),
        "likelihood": (0, False),
        "generation": (0, False),
        "retrieval": (0, False),
    }
    empty = Results(RESULTS.header)
    assert read_parquet(empty, "items") == []
    assert {row["score"] for row in read_parquet(empty, "table")} == {None}


@pytest.mark.parametrize("rows", ["items", "table"])
def test_parquet_has_the_header(rows: Rows) -> None:
    table = pq.read_table(io.BytesIO(to_parquet(RESULTS, rows)))
    metadata = table.schema.metadata[HEADER_KEY.encode()]
    assert msgspec.json.decode(metadata, type=Header) == RESULTS.header


def test_hostile_texts_are_harmless_in_csv() -> None:
    header = make_header()
    metric = msgspec.structs.replace(header.tasks[0].metrics[0], name="=cmd\x1b|x")
    lanes = [msgspec.structs.replace(lane, name="=HYPERLINK(1)") for lane in header.lanes]
    tasks = [msgspec.structs.replace(header.tasks[0], metrics=[metric]), *header.tasks[1:]]
    header = msgspec.structs.replace(header, tasks=tasks, lanes=lanes)
    whole = make_results()
    items = [
        msgspec.structs.replace(item, question=f"=1+1{text}", gold="+2", hash="@x", target="-3")
        for item, text in zip(whole.items["options"], HOSTILE, strict=False)
    ]
    results = Results(header, whole.items | {"options": items}, whole.ends)
    for rows in ("items", "table"):
        text = to_csv(results, rows)
        assert all(character == "\n" or character.isprintable() for character in text)
        assert "\x1b" not in text
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert any("=HYPERLINK" in cell for cell in cells)
        for cell in cells:
            # A number may have a sign.
            assert cell[:1] not in "=+@\t" or not cell
            assert cell[:1] != "-" or float(cell) < 0
