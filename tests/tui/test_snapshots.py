"""Whole screens as they were last approved; `pytest --snapshot-update` approves them anew."""

from pathlib import Path

import msgspec
import pytest
from prunetui.engine.trace.file import read_trace
from prunetui.tui.app import InspectorApp
from prunetui.tui.screens import export
from prunetui.tui.screens.prompt import Decoding, PromptEditor
from textual.pilot import Pilot

from ..support.screens import both_sizes, keep_the_cursor_still, panel_text, replay, until
from ..support.traces import make_header, make_trace, with_local

both_themes = pytest.mark.parametrize("theme", ["dark", "light"])


NOTES = [
    "The model's generation settings say repetition_penalty 1.3, no_repeat_ngram_size 3; decoding "
    "here does not follow them.",
    "The tokenizer adds an end token to every text; the prompt is read without.",
]


def app(theme: str, steps: int = 40) -> InspectorApp:
    return replay(make_trace(steps), theme=theme)


@both_sizes
@both_themes
def test_the_main_screen(snap_compare, size, theme) -> None:
    async def in_the_middle(pilot: Pilot[None]) -> None:
        await pilot.press("home", "shift+right")
        await until(pilot, lambda: "step 10 " in panel_text(pilot.app, "#candidates"))

    assert snap_compare(app(theme), terminal_size=size, run_before=in_the_middle)


def test_a_large_terminal(snap_compare) -> None:
    """Lanes side by side, and the drift of all variants."""
    large = replay(with_local(make_trace(40, 4)))

    async def in_the_middle(pilot: Pilot[None]) -> None:
        await pilot.press("home", "shift+right")
        await until(pilot, lambda: "step 10 " in panel_text(pilot.app, "#all-variants"))

    assert snap_compare(large, terminal_size=(200, 60), run_before=in_the_middle)


def test_readme(snap_compare) -> None:
    """The README's picture: the demo model on the poster's question, 8 MLPs dropped."""
    path = Path(__file__).parents[1] / "data" / "natalia.trace.jsonl"
    at_end = replay(read_trace(path), path)

    async def to_the_collapse(pilot: Pilot[None]) -> None:
        await pilot.press("down", "down", "home", *["shift+right"] * 5)
        await until(pilot, lambda: "step 50 " in panel_text(pilot.app, "#candidates"))

    assert snap_compare(at_end, terminal_size=(120, 40), run_before=to_the_collapse)


@both_sizes
def test_the_baseline_selected(snap_compare, size) -> None:
    async def select(pilot: Pilot[None]) -> None:
        await pilot.press("up")
        await until(pilot, lambda: "does not drift" in panel_text(pilot.app, "#drift"))

    assert snap_compare(app("dark"), terminal_size=size, run_before=select)


@both_sizes
@both_themes
def test_help(snap_compare, size, theme) -> None:
    assert snap_compare(app(theme), terminal_size=size, press=["question_mark"])


def app_with_notes() -> InspectorApp:
    trace = make_trace(40)
    trace.header = msgspec.structs.replace(trace.header, notes=NOTES)
    return replay(trace, theme="dark")


@both_sizes
def test_a_trace_with_notes(snap_compare, size) -> None:
    assert snap_compare(app_with_notes(), terminal_size=size)


@both_sizes
def test_help_shows_the_notes(snap_compare, size) -> None:
    assert snap_compare(app_with_notes(), terminal_size=size, press=["question_mark"])


@both_sizes
@both_themes
def test_the_export_dialog(snap_compare, monkeypatch, size, theme) -> None:
    monkeypatch.setattr(export, "_working_directory", lambda: (Path("/home/lena/pruned"), ""))

    async def open_dialog(pilot: Pilot[None]) -> None:
        await pilot.press("e", "h")
        await keep_the_cursor_still(pilot)

    assert snap_compare(app(theme), terminal_size=size, run_before=open_dialog)


@both_sizes
@both_themes
def test_the_prompt_editor(snap_compare, size, theme) -> None:
    async def edit(pilot: Pilot[None]) -> None:
        sampling = make_header().sampling
        decoding = Decoding("Why [do] these\ndiffer?\x1b[31m", raw=False, sampling=sampling)
        await pilot.app.push_screen(PromptEditor(decoding))
        await keep_the_cursor_still(pilot)

    assert snap_compare(app(theme), terminal_size=size, run_before=edit)


def test_a_terminal_that_is_too_small(snap_compare) -> None:
    assert snap_compare(app("dark"), terminal_size=(50, 12))
