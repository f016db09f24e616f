"""Randomly damaged evaluations: refused with a sentence, or shown by every export."""

import contextlib
import io
import random
from pathlib import Path

import msgspec
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.results import statistics
from prunetui.engine.results.export.formats import REPORTS, ROW_FORMATS
from prunetui.engine.results.export.lm_eval_files import lm_eval_files
from prunetui.engine.results.file import ResultsWriter, read_results
from prunetui.engine.results.results import Results
from prunetui.tui.cli.results_table import print_results
from rich.console import Console

from ..support.mutations import MUTATIONS
from ..support.results import write_results


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 20)


def export_all(results: Results) -> None:
    for form in ROW_FORMATS.values():
        assert form(results, "items")
        assert form(results, "table")
    for report in REPORTS.values():
        # No lone surrogate.
        assert str(report(results)).encode()
    with contextlib.suppress(UserError):
        assert all(content.encode() for _, content in lm_eval_files(results))
    print_results(Console(file=io.StringIO(), width=80), results)


def read_damaged(folder: Path, mutation: str, seeds: range, *, export: int) -> int:
    """Read the file damaged in a way of each seed; return how many could be read.

    Of these, the first `export` are exported to every format.
    """
    content, path = write_results(folder, items=2).read_bytes(), folder / "damaged"
    count = 0
    for seed in seeds:
        path.write_bytes(MUTATIONS[mutation](content, random.Random(seed)))
        try:
            results = read_results(path)
        except UserError:
            continue
        count += 1
        for lines in ([results.header], *results.items.values(), results.ends.values()):
            for line in lines:
                assert msgspec.json.decode(msgspec.json.encode(line), type=type(line)) == line
        writer, resumed = ResultsWriter.resume(path)
        writer.close()
        assert resumed == results == read_results(path)
        if count <= export:
            try:
                export_all(results)
            except Exception as error:
                raise AssertionError(f"{mutation} {seed}: {error!r}") from error
    return count


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_damaged_file_is_exported_or_refused(mutation: str, tmp_path: Path) -> None:
    assert read_damaged(tmp_path, mutation, range(120), export=6) > 8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("part", range(5))
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_ten_thousand_damaged_files(mutation: str, part: int, tmp_path: Path) -> None:
    seeds = range(1000 * part + 1000, 1000 * part + 2000)
    assert read_damaged(tmp_path, mutation, seeds, export=1000) > 50
