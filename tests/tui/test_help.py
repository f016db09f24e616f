"""Help: what is on the screen comes first, and letters find the rest; the line of keys likewise."""

import msgspec
import pytest
from prunetui.tui.app import InspectorApp
from prunetui.tui.screens.help import NONE_FOUND, HelpScreen
from prunetui.tui.screens.inspector import Inspector
from prunetui.tui.screens.keys import KEYS, PALETTE
from textual.widgets import Static

from ..support.fake_session import FakeSession
from ..support.screens import (
    SIZE,
    both_sizes,
    cells_of,
    inspector,
    live,
    panel_text,
    ready,
    replay,
    settle,
    until,
)
from ..support.traces import make_trace


def help_titles(app: InspectorApp) -> list[str]:
    """Titles of the sections that the help shows."""
    titles = app.screen.query(".dialog-title").results(Static)
    return [str(title.content) for title in titles if title.display]


def help_terms(app: InspectorApp) -> list[str]:
    """Terms of the rows that the help shows."""
    tables = app.screen.query(".help-rows").results(Static)
    tables_cells = [cells_of(table) for table in tables if table.display]
    return [term for cells in tables_cells for term in cells[: len(cells) // 2]]


async def test_help_lists_every_key_that_works_and_closes() -> None:
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("question_mark")
        working = [key for key in KEYS if key.id not in inspector(app).hidden_keys]
        tables = [cells_of(table) for table in app.screen.query(".help-rows").results(Static)]
        keys = next(cells for cells in tables if cells)
        meanings = [key.tooltip for key in (*working, PALETTE)]
        assert keys[len(keys) // 2 :] == meanings
        assert help_titles(app) == ["Keys", "Mouse", "Marks", "Measures", "Contexts", "Words"]
        await pilot.press("escape")
        assert isinstance(app.screen, Inspector)


async def test_the_keys_of_the_view_and_the_notes_come_first() -> None:
    trace = make_trace(20)
    trace.header = msgspec.structs.replace(trace.header, notes=["A note."])
    app = replay(trace)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2", "question_mark")
        assert help_titles(app)[:3] == ["Notes on the numbers", "Layers view", "Keys"]
        assert help_terms(app)[:5] == ["!", "l", "pgup", "pgdn", "esc"]


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("theorem 3", ["3", "estimate"]),
        ("noise floor", ["◇", "noise floor"]),
        ("clipboard", ["y"]),
        ("LENS NORM", ["l", "lens", ""]),
    ],
)
async def test_letters_find_keys_marks_measures_and_words(query: str, terms: list[str]) -> None:
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("question_mark", *query)
        assert help_terms(app) == terms


async def test_escape_clears_what_was_typed_and_then_closes() -> None:
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("question_mark", *"xyzzy")
        assert help_terms(app) == []
        none = app.screen.query_one("#help-none", Static)
        assert none.display
        assert str(none.content) == NONE_FOUND
        await pilot.press("escape")
        assert not none.display
        assert len(help_titles(app)) == 6
        await pilot.press("escape")
        assert isinstance(app.screen, Inspector)


async def test_the_arrows_and_pages_scroll_the_help() -> None:
    app = replay()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("question_mark", "down", "down", "pagedown", "up")
        scrolled = app.screen.query_one("VerticalScroll")
        assert scrolled.scroll_y == scrolled.size.height + 1
        await pilot.press("pageup")
        assert scrolled.scroll_y == 1


async def test_a_click_on_a_key_in_the_help_does_what_it_does_and_the_button_closes() -> None:
    app = replay(make_trace(20))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("question_mark", *"first step")
        keys = app.screen.query(".help-rows").results(Static)
        table = next(table for table in keys if table.display)
        await pilot.click(table, offset=(14, cells_of(table).index("home")))
        await until(pilot, lambda: isinstance(app.screen, Inspector))
        await until(pilot, lambda: inspector(app).cursor == 0)
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        await pilot.click("Button")
        assert isinstance(app.screen, Inspector)


@both_sizes
async def test_the_line_of_keys_begins_with_those_of_the_view(size: tuple[int, int]) -> None:
    app = live(FakeSession(5))
    async with app.run_test(size=size) as pilot:
        await ready(pilot, app)
        beginnings = {
            "1": " esc overview  space play",
            "2": " l lens  pgup/pgdn layers  esc overview  space play",
            "3": " m drawing  esc overview  space play",
            "4": " a answers  esc overview  space play",
            "5": " m drawing  esc overview  space play",
            "6": " m drawing  esc overview  space play",
            "0": " space play  → step",
        }
        for key, beginning in beginnings.items():
            await pilot.press(key)
            await settle(pilot)
            line = panel_text(app, "KeyLine")
            assert line.startswith(beginning), line
            assert line.rstrip().endswith("? help  q quit")
