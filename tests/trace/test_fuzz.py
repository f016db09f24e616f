"""Randomly damaged traces: refused with a sentence, or shown by every export and view."""

import contextlib
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.trace.export.formats import FORMATS
from prunetui.engine.trace.file import SUFFIX, read_trace
from prunetui.engine.trace.trace import Trace
from prunetui.engine.trace.vector_file import vectors_path, write_safetensors
from prunetui.tui.app import PrunetuiApp
from prunetui.tui.views.catalog import VIEWS

from ..support.mutations import MUTATIONS
from ..support.screens import inspector, settle
from ..support.traces import write_whole_trace


def damaged(folder: Path, mutation: str, seeds: range) -> Iterator[tuple[int, Path, Trace]]:
    """Seed, path and trace for each seed whose damaged trace can be read."""
    content = write_whole_trace(folder).read_bytes()
    path = folder / f"whole-damaged{SUFFIX}"
    for seed in seeds:
        path.write_bytes(MUTATIONS[mutation](content, random.Random(seed)))
        with contextlib.suppress(UserError):
            yield seed, path, read_trace(path)


def export_all(folder: Path, mutation: str, seeds: range) -> int:
    """Export each readable trace to every format; return how many there were."""
    count = 0
    for seed, path, trace in damaged(folder, mutation, seeds):
        count += 1
        for name, export in FORMATS.items():
            try:
                content = export(trace)
                assert content if isinstance(content, bytes) else content.encode()
            except UserError:
                pass
            except Exception as error:
                raise AssertionError(f"{mutation} {seed} as {name}: {error!r}") from error
        output = folder / "a.safetensors"
        for space in ("h", "z"):
            beside = vectors_path(path, space)
            if not beside.exists():
                beside.write_bytes(vectors_path(folder / f"whole{SUFFIX}", space).read_bytes())
        try:
            write_safetensors(trace, path, output)
            output.unlink()
        except UserError:
            assert not output.exists()
    return count


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_damaged_trace_is_exported_or_refused(mutation: str, tmp_path: Path) -> None:
    count = export_all(tmp_path, mutation, range(250))
    # Of what no trace is made, nothing is exported.
    assert count > 10


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_ten_thousand_damaged_traces(mutation: str, part: int, tmp_path: Path) -> None:
    assert export_all(tmp_path, mutation, range(1000 * part + 1000, 1000 * part + 2000)) > 50


async def open_every_view(trace: Trace, path: Path, lanes: range) -> None:
    app = PrunetuiApp.replay(trace, path)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        for lane in lanes:
            await pilot.press("up", "up", *["down"] * lane)
            assert inspector(app).lane == lane
            for view, _, _ in VIEWS:
                inspector(app).action_view(view)
                await settle(pilot)
                await pilot.press("home", "m", "end")
                await settle(pilot)
            inspector(app).action_view(VIEWS[-1][0])
        await pilot.press("t", "escape", "enter", "escape", "y", "question_mark", "escape", "e")
        await pilot.press("escape", "q")
    assert app.return_code == 0


async def replay_some(
    folder: Path, mutation: str, count: int, first_seed: int, lanes: range = range(3)
) -> None:
    readable = damaged(folder, mutation, range(first_seed, first_seed + 100 * count))
    shown = [*itertools.islice(readable, count)]
    assert len(shown) == count
    for seed, path, trace in shown:
        try:
            await open_every_view(trace, path, lanes)
        except BaseException as error:
            raise AssertionError(f"{mutation} {seed}: {error!r}") from error


async def test_damaged_traces_that_can_be_read_are_shown(tmp_path: Path) -> None:
    await replay_some(tmp_path, "values", 1, 0, range(1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
@pytest.mark.parametrize("mutation", MUTATIONS)
async def test_a_hundred_damaged_traces_are_shown(mutation: str, part: int, tmp_path: Path) -> None:
    await replay_some(tmp_path, mutation, 5, 10000 + 1000 * part)
