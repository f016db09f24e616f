"""CSV and Parquet with every number of a trace, and the screen as SVG."""

import csv
import io
import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pyarrow.parquet as pq
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.trace.export.formats import to_csv, to_parquet
from prunetui.engine.trace.export.parquet import HEADER_KEY
from prunetui.engine.trace.export.table import COLUMNS, rows
from prunetui.engine.trace.records import AnswerNumbers, Answers, Drift, Header, LaneLens, Token
from prunetui.engine.trace.trace import Trace
from prunetui.tui.app import PrunetuiApp
from prunetui.tui.screens.export import ExportDialog
from textual.widgets import Input, Label

from ..support.screens import replay
from ..support.traces import make_header, make_lens, make_step, make_trace, with_local

STEPS = 9


@pytest.fixture(scope="module")
def trace() -> Trace:
    """Trace with local drift, answers and two lenses, a lane that ends and a number not finite."""
    whole = with_local(make_trace(STEPS))
    whole.header = msgspec.structs.replace(
        whole.header, answers=Answers(texts=["A", "B"], tokens=[4, 5])
    )
    for number, step in enumerate(whole.steps):
        first = step.drift[0]
        assert first is not None
        ended = number == STEPS - 1
        whole.steps[number] = msgspec.structs.replace(
            step,
            lanes=[*step.lanes[:2], None if ended else step.lanes[2]],
            drift=[
                msgspec.structs.replace(first, kl=None) if number == 3 else first,
                None if ended else step.drift[1],
            ],
            candidates=msgspec.structs.replace(
                step.candidates,
                probs=[*step.candidates.probs[:2], None if ended else step.candidates.probs[2]],
            ),
            layers=[step.layers[0], None if ended else step.layers[1]],
            local_layers=[[0.5 - number / 100] * 6, [0.25, None, 0.125, 0.5, 0.0, 1.0]],
            answers=[None if ended and lane == 2 else answers(number + lane) for lane in range(3)],
            local_answers=[answers(-number - lane) for lane in range(2)],
            lens=make_lens(local=True) if number in (2, 5) else None,
        )
    return whole


def answers(number: int) -> AnswerNumbers:
    return AnswerNumbers(z=[number / 3, None], logprob=[-number / 7, -1.5])


def lens_cells(prefix: str, lens: LaneLens | None) -> dict[str, object]:
    lists = ("tokens", "texts", "probs", "raw_tokens", "raw_texts", "raw_probs")
    cells: dict[str, object] = {f"{prefix}{key}": getattr(lens, key, None) for key in lists}
    for key in ("cos_h", "cos_z", "cos_p", "kl"):
        read = [getattr(transition, key) for transition in lens.transitions] if lens else None
        cells[f"{prefix}transition_{key}"] = read
    return cells


def expected(trace: Trace) -> list[dict[str, object]]:
    """Expected rows by column, taken directly from the records."""
    table = []
    for step in trace.steps:
        for lane, token in enumerate(step.lanes):
            if token is None:
                continue
            assert step.local
            assert step.local_layers
            assert step.answers
            assert step.local_answers
            drift, local = step.drift_of(lane), step.local_of(lane)
            own, answer = step.answers[lane], step.local_answers_of(lane)
            row: dict[str, object] = {
                "step": step.step,
                "lane": lane,
                "name": trace.lane_names[lane],
                **{key: getattr(token, key) for key in Token.__struct_fields__},
                **{key: getattr(drift, key, None) for key in Drift.__struct_fields__},
                **{f"local_{key}": getattr(local, key, None) for key in Drift.__struct_fields__},
                "seconds": step.seconds,
                "read": step.read,
                "memory": step.memory,
                "layers": step.layers_of(lane),
                "local_layers": step.local_layers_of(lane),
                "candidates": step.candidates.tokens,
                "candidate_texts": step.candidates.texts,
                "candidate_probs": step.candidates.probs[lane],
                "answer_z": own.z if own else None,
                "answer_logprob": own.logprob if own else None,
                "local_answer_z": answer.z if answer else None,
                "local_answer_logprob": answer.logprob if answer else None,
                **lens_cells("lens_", step.lens.lanes[lane] if step.lens else None),
                **lens_cells(
                    "local_lens_",
                    step.lens.local_of(lane) if step.lens else None,
                ),
            }
            table.append(row)
    assert len(table) == 3 * STEPS - 1
    return table


def test_parquet_gives_back_every_number(trace: Trace) -> None:
    table = pq.read_table(io.BytesIO(to_parquet(trace)))
    assert table.to_pylist() == expected(trace)
    header = msgspec.json.decode(table.schema.metadata[HEADER_KEY.encode()], type=Header)
    assert header == trace.header
    # Nothing but nulls must not change a column's type.
    empty = pq.read_table(io.BytesIO(to_parquet(Trace(make_header()))))
    assert empty.schema == table.schema
    free = pq.read_table(io.BytesIO(to_parquet(make_trace(1))))
    assert free.schema == table.schema


def test_csv_gives_back_every_number(trace: Trace) -> None:
    read = csv.DictReader(io.StringIO(to_csv(trace)))
    table = [{key: _parsed(key, cell) for key, cell in row.items()} for row in read]
    assert table == expected(trace)


def _parsed(column: str, cell: str) -> object:
    if cell == "":
        return None
    return bool(int(cell)) if COLUMNS[column] == "bool" else json.loads(cell)


def test_a_row_has_a_cell_for_each_column(trace: Trace) -> None:
    assert {len(row) for row in rows(trace)} == {len(COLUMNS)}


def test_steps_taken_back_are_in_no_table(trace: Trace) -> None:
    back = Trace(trace.header)
    for step in trace.steps[:4]:
        back.append(step)
    back.rewind(1)
    back.append(make_step(1))
    assert [row[0] for row in rows(back)] == [0, 0, 0, 1, 1, 1]


def test_without_pyarrow_a_sentence_says_what_to_install(
    trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        to_parquet(trace)


async def test_the_dialog_writes_parquet_and_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = make_trace(5)
    monkeypatch.chdir(tmp_path)
    app = PrunetuiApp.replay(trace, tmp_path / "some.trace.jsonl")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("e", "p")
        with monkeypatch.context() as without:
            without.setitem(sys.modules, "pyarrow", None)
            await pilot.press("enter")
        said = str(app.screen.query_one(".dialog-problem", Label).visual)
        assert said.endswith("pip install pyarrow.")
        assert [*tmp_path.iterdir()] == []
        await pilot.press("enter")
        assert (tmp_path / "some.parquet").read_bytes() == to_parquet(trace)


async def test_the_dialog_writes_the_screen_beneath_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = replay(make_trace(30), tmp_path / "some.trace.jsonl")
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("e", "s")
        assert app.screen.query_one(Input).value == str(tmp_path / "some.svg")
        assert isinstance(app.screen, ExportDialog)
        await pilot.press("enter")
        written = (tmp_path / "some.svg").read_text("utf-8")
        shown = "".join(ElementTree.fromstring(written).itertext()).replace("\xa0", " ")
        assert "next token at step 29" in shown
        assert "Export the trace" not in shown
        # Nothing but the name of the SVG namespace points anywhere.
        assert set(re.findall(r"\w+://[^\"\s]*", written)) == {
            "http://www.w3.org/2000/svg",
            "https://www.textualize.io",
        }
