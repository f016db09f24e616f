"""Messages, which take the place of the key line and cover no number."""

import pytest
from prunetui.tui.app import InspectorApp
from textual.notifications import SeverityLevel
from textual.pilot import Pilot

from ..support.fake_session import FakeSession
from ..support.screens import (
    both_sizes,
    inspector,
    live,
    ready,
    replay,
    screen_lines,
    settle,
    until,
)

LONG = (
    "Nothing of this sentence may be missing where it takes more than one row of the screen. " * 2
)


def lines(app: InspectorApp) -> list[str]:
    return [line.rstrip() for line in screen_lines(app.screen)]


async def tell(
    pilot: Pilot[None], app: InspectorApp, sentence: str, severity: SeverityLevel = "information"
) -> None:
    app.notify(sentence, severity=severity, markup=False)
    await until(pilot, lambda: sentence.split()[-1] in lines(app)[-1])


@both_sizes
async def test_a_message_stands_in_the_place_of_the_key_line_until_a_key(
    size: tuple[int, int],
) -> None:
    app = replay()
    async with app.run_test(size=size, notifications=True) as pilot:
        await settle(pilot)
        before = lines(app)
        await tell(pilot, app, "One [b]sentence[/b].")
        assert lines(app) == [*before[:-1], " One [b]sentence[/b]."]
        await pilot.press("end")
        await until(pilot, lambda: lines(app) == before)


async def test_a_long_message_takes_rows_from_the_panels_and_covers_none() -> None:
    app = replay()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await settle(pilot)
        await tell(pilot, app, LONG)
        rows = lines(app)[-3:]
        assert " ".join(" ".join(rows).split()) == LONG.strip()
        assert inspector(app).query_one("#views").region.bottom == 24 - len(rows)
        assert inspector(app).query_one("#status").region.y == 0


async def test_the_newest_message_wins_and_errors_stay() -> None:
    app = replay()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await settle(pilot)
        await tell(pilot, app, "First.")
        await tell(pilot, app, "Careful.", "warning")
        await tell(pilot, app, "Broken.", "error")
        await tell(pilot, app, "Last.")
        assert lines(app)[-3:] == [" ! Careful.", " ✗ Broken.", " Last."]
        assert "First." not in "".join(lines(app))
        await pilot.press("end")
        await until(pilot, lambda: lines(app)[-2:] == [" ! Careful.", " ✗ Broken."])


@pytest.mark.parametrize("key", ["e", "p", "v", "question_mark", "ctrl+p"])
async def test_a_message_is_seen_over_dialogs_and_in_the_editor(key: str) -> None:
    app = live(FakeSession())
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await ready(pilot, app)
        await pilot.press("right", key)
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await tell(pilot, app, "One sentence.", "error")
        assert lines(app)[-1] == " ✗ One sentence."
