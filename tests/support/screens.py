"""Applications under test: opening them, waiting for them and reading their screens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prunetui.engine.options import Options
from prunetui.engine.progress import Progress
from prunetui.engine.trace.trace import Trace
from prunetui.tui.app import InspectorApp, PrunetuiApp
from prunetui.tui.screens.inspector import OVERVIEW, Inspector
from prunetui.tui.session_port import SessionPort
from prunetui.tui.user.state_files import write_position
from prunetui.tui.widgets.panel import Panel
from rich.table import Table
from textual import events
from textual.app import App
from textual.keys import _character_to_key
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input, Static, TextArea

from .fake_session import FakeSession
from .traces import make_trace

SIZE = (120, 40)
both_sizes = pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])


def live(session: SessionPort) -> PrunetuiApp:
    """An inspector of a session that is open already."""

    def open_session(_options: Options, _record_to: Path | None, progress: Progress) -> SessionPort:
        progress("loading", 0.5)
        if isinstance(session, FakeSession):
            session.progress = progress
        return session

    return PrunetuiApp(Options(), None, open_session=open_session)


REPLAY_REFUSAL = (
    "This is a replay: there is no model to decode with; prunetui --resume some.trace.jsonl loads "
    "it."
)


def replay(
    trace: Trace | None = None, path: Path = Path("some.trace.jsonl"), theme: str | None = None
) -> InspectorApp:
    """An inspector of a recorded trace that was left at its end, made up if none is given."""
    write_position(path, None, 1, OVERVIEW)
    return PrunetuiApp.replay(trace or make_trace(20), path, theme=theme)


def inspector(app: App[None]) -> Inspector:
    """The inspector under all dialogs."""
    screen = app.screen_stack[0]
    assert isinstance(screen, Inspector)
    return screen


def send(app: InspectorApp, *keys: str) -> None:
    """Send keys in one burst, as a terminal does, without waiting for what they do."""
    for key in keys:
        name = key if len(key) > 1 or key.isalnum() else _character_to_key(key)
        app.post_message(events.Key(name, key if len(key) == 1 else None))


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    """Run the application and its threads until the condition holds, at most 10 seconds."""
    for _ in range(2000):
        if condition():
            return
        await pilot.pause(0.005)
    raise AssertionError("it never came about")


async def ready(pilot: Pilot[None], app: App[None]) -> Inspector:
    """The inspector of a live session, once it shows the session."""
    await until(pilot, lambda: inspector(app).trace is not None)
    await until(pilot, lambda: panel_text(app, "#status"))
    return inspector(app)


async def settle(pilot: Pilot[None]) -> None:
    """Wait until every key is processed and every requested frame is drawn."""
    app = pilot.app
    assert isinstance(app, InspectorApp)
    await until(pilot, lambda: not app.type_ahead.pending)
    screen = inspector(app)
    await pilot.pause()
    await until(pilot, lambda: not screen.pending)
    await pilot.pause()


def panel_text(app: App[None], selector: str) -> str:
    """Text of a panel as drawn."""
    panel = inspector(app).query_one(selector, Panel)
    return "\n".join(panel.render_line(y).text for y in range(panel.size.height))


def cells_of(table: Static) -> list[str]:
    """Texts of a table's cells, column by column."""
    assert isinstance(table.content, Table)
    return [str(cell) for column in table.content.columns for cell in column.cells]


def notices(app: InspectorApp) -> list[str]:
    """Texts of the notifications that are on the screen."""
    return [notification.message.lstrip("!✗ ") for notification in app._notifications]


def dialog_problem(app: App[None]) -> str:
    """The sentence of the open dialog on what is wrong with its fields."""
    return str(app.screen.query_one(".dialog-problem", Static).visual)


def view_text(app: App[None]) -> str:
    """Text of the chosen view as drawn."""
    region = inspector(app).query_one("#views").region
    return "\n".join(screen_lines(app.screen_stack[0])[region.y : region.bottom])


def screen_lines(screen: Screen[Any]) -> list[str]:
    """Text of a screen as drawn, a line each."""
    return [strip.text for strip in screen._compositor.render_strips()]


async def keep_the_cursor_still(pilot: Pilot[None]) -> None:
    """Stop the blinking of cursors, which a snapshot would catch by chance."""
    for field in pilot.app.screen.query("Input, TextArea"):
        assert isinstance(field, Input | TextArea)
        field.cursor_blink = False
    await pilot.pause()
