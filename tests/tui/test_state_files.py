"""State files: settings and replay positions across runs, damaged or not writable."""

import os
from pathlib import Path

import msgspec
import pytest
from prunetui.themes import DARK
from prunetui.tui.app import InspectorApp, PrunetuiApp
from prunetui.tui.user.state_files import (
    MAX_POSITIONS,
    Settings,
    change_settings,
    read_position,
    read_settings,
    write_position,
)

from ..support.screens import inspector, notices, replay, until
from ..support.traces import make_trace


@pytest.fixture
def state() -> Path:
    path = Path(os.environ["XDG_STATE_HOME"]) / "prunetui"
    path.mkdir(parents=True)
    return path


async def test_a_theme_that_was_chosen_is_there_next_time() -> None:
    app = replay()
    async with app.run_test() as pilot:
        app.theme = "okabe-ito"
        await until(pilot, lambda: read_settings().theme == "okabe-ito")
    assert replay().theme == "okabe-ito"
    assert replay(theme="light").theme == "light"
    assert read_settings() == Settings(theme="okabe-ito")


async def test_damaged_settings_are_spoken_of_and_not_used(state: Path) -> None:
    (state / "settings.json").write_text('{"theme": 3}')
    app = replay()
    async with app.run_test(notifications=True) as pilot:
        await until(pilot, lambda: notices(app))
        assert notices(app) == [
            f"{state / 'settings.json'} is damaged and not used: "
            "Expected `str | null`, got `int` - at `$.theme`"
        ]
        assert app.theme == DARK


async def test_a_state_directory_that_cannot_be_written_is_spoken_of() -> None:
    state = Path(os.environ["XDG_STATE_HOME"])
    state.write_text("a file where the directory should be")
    app = of(Path("some.trace.jsonl"))
    async with app.run_test(notifications=True) as pilot:
        app.theme = "light"
        await until(pilot, lambda: any("cannot keep" in sentence for sentence in notices(app)))
        assert app.theme == "light"
    assert app.return_code is None


def test_settings_are_replaced_whole(state: Path) -> None:
    change_settings(theme="a")
    change_settings(theme="b")
    assert [path.name for path in state.iterdir()] == ["settings.json"]
    assert msgspec.json.decode((state / "settings.json").read_bytes()) == {
        "theme": "b",
        "export_format": None,
        "told_of_ssh": False,
    }


async def test_a_theme_leaves_the_other_settings() -> None:
    change_settings(export_format="html")
    app = replay()
    async with app.run_test() as pilot:
        app.theme = "light"
        await until(pilot, lambda: read_settings().theme == "light")
    assert read_settings() == Settings(theme="light", export_format="html")


def of(path: Path, steps: int = 20) -> InspectorApp:
    return PrunetuiApp.replay(make_trace(steps), path)


async def test_a_replay_opens_where_it_was_left(tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    app = of(path)
    async with app.run_test() as pilot:
        inspector(app).move_to(7)
        await pilot.press("down")
    again = of(tmp_path / "b" / ".." / "a.trace.jsonl")
    async with again.run_test():
        assert (inspector(again).cursor, inspector(again).lane) == (7, 2)
    other = of(tmp_path / "other.trace.jsonl")
    async with other.run_test():
        assert (inspector(other).cursor, inspector(other).lane) == (4, 1)


async def test_a_replay_opens_at_the_divergence_of_a_lane_that_has_one(tmp_path: Path) -> None:
    trace = make_trace(20)
    for number, step in enumerate(trace.steps):
        # Lane 1 says what the baseline says, as a control does.
        lanes = [step.lanes[0], step.lanes[0], step.lanes[2]]
        trace.steps[number] = msgspec.structs.replace(step, lanes=lanes)
    app = PrunetuiApp.replay(trace, tmp_path / "a.trace.jsonl")
    async with app.run_test():
        assert (inspector(app).cursor, inspector(app).lane) == (8, 2)
    app = PrunetuiApp.replay(make_trace(3), tmp_path / "b.trace.jsonl")
    async with app.run_test():
        assert (inspector(app).cursor, inspector(app).lane) == (2, 1)
    app = PrunetuiApp.replay(make_trace(3, variants=0), tmp_path / "c.trace.jsonl")
    async with app.run_test():
        assert (inspector(app).cursor, inspector(app).lane) == (2, 0)


async def test_a_place_that_is_no_longer_there_is_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    write_position(path, 300, 9, "a view of another version")
    app = of(path)
    async with app.run_test():
        assert (inspector(app).cursor, inspector(app).lane) == (19, 2)
        assert inspector(app).chosen_view == "overview"


def test_the_oldest_places_make_room(tmp_path: Path) -> None:
    for number in range(MAX_POSITIONS + 1):
        write_position(tmp_path / str(number), number, 1, "overview")
    assert read_position(tmp_path / "0") is None
    for number in (1, MAX_POSITIONS):
        place = read_position(tmp_path / str(number))
        assert place
        assert place.cursor == number


async def test_damaged_places_are_spoken_of_and_replaced(state: Path, tmp_path: Path) -> None:
    (state / "places.json").write_bytes(b"\xff[")
    app = of(tmp_path / "a.trace.jsonl")
    async with app.run_test(notifications=True) as pilot:
        await until(pilot, lambda: notices(app))
        assert notices(app)[0].startswith(f"{state / 'places.json'} is damaged and not used: ")
        inspector(app).move_to(3)
    place = read_position(tmp_path / "a.trace.jsonl")
    assert place
    assert place.cursor == 3
