"""The list of recorded sessions on the screen, key by key."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import platformdirs
import pytest
from prunetui.engine.options import Options
from prunetui.engine.trace.file import SUFFIX, TraceWriter
from prunetui.tui.app import InspectorApp, PrunetuiApp
from prunetui.tui.screens.ask import ConfirmDialog
from prunetui.tui.screens.listed_replay import ListedReplay
from prunetui.tui.screens.sessions import SessionsScreen
from prunetui.tui.user.outline_cache import FILE
from prunetui.tui.user.recorded_sessions import sessions_directory
from textual.app import App
from textual.pilot import Pilot
from textual.screen import Screen

from ..support.fake_session import FakeSession
from ..support.recorded import recorded_header, write_recorded
from ..support.screens import SIZE, both_sizes, live, notices, ready, replay, screen_lines, until


def listing(directory: Path) -> InspectorApp:
    return PrunetuiApp.sessions(directory)


def sessions_screen(app: App[None]) -> SessionsScreen:
    (screen,) = [screen for screen in app.screen_stack if isinstance(screen, SessionsScreen)]
    return screen


def text_of(screen: Screen[Any]) -> str:
    return "\n".join(screen_lines(screen))


async def shows(pilot: Pilot[None], *texts: str) -> str:
    """Wait until the screen on top shows all of these, and return all that it shows."""
    await until(pilot, lambda: all(text in text_of(pilot.app.screen) for text in texts))
    return text_of(pilot.app.screen)


def selected(app: App[None]) -> str:
    """Name of the trace that the selected row stands for."""
    row = sessions_screen(app).row
    assert row is not None
    return row.trace.name


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Directory with three sessions: the newest, b, wrote three traces, the last without steps."""
    write_recorded(tmp_path, "a", "one", minute=0)
    for number, steps in enumerate([4, 9, 0]):
        name = f"b-{number + 1}" if number else "b"
        write_recorded(tmp_path, name, "two", minute=10 + number, steps=steps)
    write_recorded(tmp_path, "c", "three", minute=5, steps=12)
    return tmp_path


@both_sizes
async def test_the_newest_comes_first_with_its_facts(recorded: Path, size: tuple[int, int]) -> None:
    app = listing(recorded)
    async with app.run_test(size=size) as pilot:
        shown = await shows(pilot, "9 steps; ◆ first of all lanes at step 4: drop:attn=1")
        lines = [line for line in shown.splitlines() if "tiny" in line][:3]
        assert ["×3" in line for line in lines] == [True, False, False]
        assert [re.findall(r"(\d+)  (◆ \d+)", line) for line in lines] == [
            [("9", "◆ 4")],
            [("12", "◆ 4")],
            [("6", "◆ 4")],
        ]
        assert "3 traces, → shows them" in shown
        assert "Why [do] these differ?" in shown


async def test_enter_replays_and_q_and_esc_lead_back(recorded: Path) -> None:
    app = listing(recorded)
    async with app.run_test(size=SIZE) as pilot:
        await shows(pilot, "9 steps;")
        for leave in ("q", "escape", "o"):
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, ListedReplay))
            await shows(pilot, "9/64 steps", "replay, q: back", "q back")
            await pilot.press("1", "escape", leave)
            await until(pilot, lambda: app.screen is sessions_screen(app))
        await pilot.press("down", "enter")
        await shows(pilot, "12/64 steps")
        await pilot.press("q")
        await until(pilot, lambda: app.screen is sessions_screen(app))
        assert selected(app) == "c"
        await pilot.press("q")
    assert app.return_code == 0


async def test_a_session_unfolds_to_its_traces(recorded: Path) -> None:
    app = listing(recorded)
    async with app.run_test(size=SIZE) as pilot:
        await shows(pilot, "9 steps;")
        await pilot.press("right", "down")
        await shows(pilot, "0 steps; no lane differs from the baseline")
        assert selected(app) == "b-3"
        await pilot.press("enter")
        await shows(pilot, "0/64 steps")
        await pilot.press("q")
        await until(pilot, lambda: app.screen is sessions_screen(app))
        await pilot.press("down", "down")
        assert selected(app) == "b"
        await pilot.press("enter")
        await shows(pilot, "4/64 steps")
        await pilot.press("q")
        await until(pilot, lambda: app.screen is sessions_screen(app))
        assert selected(app) == "b"
        await pilot.press("left")
        assert (selected(app), len(sessions_screen(app).rows)) == ("b-2", 3)


async def test_a_filter_leaves_what_has_its_words(recorded: Path) -> None:
    write_recorded(recorded, "d", "four", minute=20, context="both")
    app = listing(recorded)
    async with app.run_test(size=SIZE) as pilot:
        await shows(pilot, "─ 4")
        await pilot.press("slash", *"tiny B")
        await shows(pilot, "─ 4")
        await pilot.press(*"-2")
        await shows(pilot, "1 of 4")
        assert selected(app) == "b-2"
        await pilot.press("enter")
        assert app.screen.focused is None
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ListedReplay))
        await pilot.press("q")
        await until(pilot, lambda: app.screen is sessions_screen(app))
        await pilot.press("slash", *"xyz")
        await shows(pilot, "No session matches; esc clears the filter.", "0 of 4")
        await pilot.press("escape")
        await shows(pilot, "─ 4")
        assert app.screen.query_one("#filter").display is False


@pytest.mark.parametrize("key", ["d", "delete"])
async def test_deleting_asks_first(recorded: Path, key: str) -> None:
    app = listing(recorded)
    async with app.run_test(size=SIZE) as pilot:
        await shows(pilot, "9 steps;")
        for refusal in ("escape", "n", "enter"):
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
            await shows(pilot, "Delete the 3 traces of this session, ")
            await pilot.press(refusal)
            await until(pilot, lambda: app.screen is sessions_screen(app))
        assert len([*recorded.iterdir()]) == 5
        await pilot.press(key)
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("y")
        await until(pilot, lambda: len(sessions_screen(app).rows) == 2)
        assert sorted(path.name for path in recorded.iterdir()) == [f"a{SUFFIX}", f"c{SUFFIX}"]
        assert selected(app) == "c"


async def test_resuming_ends_the_list_with_the_trace_to_go_on_with(tmp_path: Path) -> None:
    path = write_recorded(tmp_path, "a", options=Options())
    app = listing(tmp_path)
    async with app.run_test(size=SIZE) as pilot:
        await shows(pilot, "6 steps;")
        await pilot.press("r")
        await until(pilot, lambda: app.resume == path)
    assert app.return_code == 0


async def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    write_recorded(tmp_path, "a", minute=1)
    path = write_recorded(tmp_path, "b", minute=0)
    with path.open("ab") as file:
        file.write(b"nonsense\n")
    app = listing(tmp_path)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await shows(pilot, "b.trace.jsonl is damaged", "6 steps;")
        await pilot.press("r")
        sentence = f"a{SUFFIX} does not say how it was made; it cannot be resumed."
        await until(pilot, lambda: notices(app) == [sentence])
        await pilot.press("down", "enter")
        await until(pilot, lambda: len(notices(app)) == 2)
        assert "line 8 of" in notices(app)[1]
        assert app.screen is sessions_screen(app)


async def test_without_traces_it_says_how_to_make_one(tmp_path: Path) -> None:
    app = listing(tmp_path / "none")
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "No session is recorded here.", "-o names another file")
        await pilot.press(*["enter", "r", "d", "right", "left", "up", "down", "end", "escape"])
        await pilot.press("pageup", "home")
        assert app.screen is sessions_screen(app)


async def test_names_and_prompts_are_shown_with_their_escapes_visible(tmp_path: Path) -> None:
    header = recorded_header()
    hostile = "\x1b]52;c;aGk=\x07 [b]x[/b] 漢字"
    prompt = msgspec.structs.replace(header.prompt, text=hostile)
    write_recorded(tmp_path, f"x{hostile.replace('/', '')}", prompt=prompt)
    app = listing(tmp_path)
    async with app.run_test(size=SIZE) as pilot:
        shown = await shows(pilot, "6 steps;")
        assert shown.count("␛]52;c;aGk=␇ [b]x[/b] 漢字") == 2
        assert "x␛]52;c;aGk=␇ [b]x[b] 漢字 ───" in shown
        assert "\x1b" not in shown
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        assert "\x1b" not in text_of(app.screen)


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (120, 40), (200, 60)])
async def test_figures_are_never_cut(tmp_path: Path, size: tuple[int, int]) -> None:

    path = write_recorded(tmp_path, "a")
    status = path.stat()
    outline = {
        "steps": 12_345_678,
        "branches": 3,
        "divergence": {"step": 1_234_567, "lane": 2, "tie": True},
    }
    entry = {"bytes": status.st_size, "modified": status.st_mtime_ns, "problem": ""}
    cache = platformdirs.user_cache_path("prunetui") / FILE
    cache.parent.mkdir(parents=True)
    cache.write_text(json.dumps({str(path): {**entry, "outline": outline}}))
    app = listing(tmp_path)
    async with app.run_test(size=size) as pilot:
        shown = await shows(pilot, "12345678", "◇ 1234567")
        rows = [line for line in shown.splitlines() if "12345678" in line]
        assert "◇ 1234567" in rows[0]
        assert "12345678 steps in the last open of 3 branches" in shown


async def test_clicks_select_and_open(recorded: Path) -> None:
    app = listing(recorded)
    async with app.run_test(size=SIZE) as pilot:
        await shows(pilot, "9 steps;")
        await pilot.click("#sessions-list", offset=(10, 4))
        await until(pilot, lambda: selected(app) == "a")
        assert app.screen is sessions_screen(app)
        await pilot.click("#sessions-list", offset=(10, 4))
        await shows(pilot, "6/64 steps")


async def test_o_lists_over_a_live_session_which_stays_open() -> None:
    session = FakeSession()
    session.recording = write_recorded(sessions_directory(), "own", "own", minute=30, steps=3)
    write_recorded(sessions_directory(), "old", "old", options=Options())
    app = live(session)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        below = await ready(pilot, app)
        await pilot.press("o")
        await shows(pilot, str(sessions_directory()), "● being recorded")
        await pilot.press("r")
        await until(
            pilot,
            lambda: notices(app) == ["That is the session that is open: esc leads back to it."],
        )
        await pilot.press("d", "y")
        sentence = "own is being recorded; it can be deleted when that has ended."
        await until(pilot, lambda: sentence in notices(app))
        assert session.recording.exists()
        await pilot.press("down", "r")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await shows(pilot, "The session that is open ends; it is recorded as own.trace.jsonl.")
        await pilot.press("escape", "enter")
        await until(pilot, lambda: isinstance(app.screen, ListedReplay))
        await pilot.press("o", "escape")
        await until(pilot, lambda: app.screen is below)
        assert not session.closed.is_set()
        await pilot.press("o")
        await shows(pilot, "● being recorded")
        await pilot.press("down", "r")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("y")
        await until(pilot, lambda: app.resume is not None)
    assert session.closed.is_set()


async def test_o_lists_over_a_replay_too() -> None:
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        below = app.screen
        await pilot.press("o")
        await shows(pilot, "No session is recorded here.")
        writer = TraceWriter(sessions_directory() / f"other{SUFFIX}", recorded_header())
        await pilot.press("q", "o")
        await shows(pilot, "other ──", "● being recorded")
        writer.close()
        await pilot.press("q")
        await until(pilot, lambda: app.screen is below)


async def test_keys_in_a_burst_open_one_replay(recorded: Path) -> None:
    app = listing(recorded)
    async with app.run_test(size=SIZE) as pilot:
        await shows(pilot, "9 steps;")
        for key in ["enter", "enter", "d", "d", "n", "n", "enter", "enter", "q", "enter"]:
            app.simulate_key(key)
        await until(pilot, lambda: isinstance(app.screen, ListedReplay))
        assert sum(isinstance(screen, ListedReplay) for screen in app.screen_stack) == 1
        await pilot.press("escape", "escape")
        await until(pilot, lambda: app.screen is sessions_screen(app))
