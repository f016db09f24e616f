"""Applications under test: how they are opened, awaited and read."""

from collections.abc import Callable
from pathlib import Path

import pytest
from prunetui.engine.options import Options
from prunetui.engine.progress import Progress
from prunetui.engine.trace.trace import Trace
from prunetui.tui.app import InspectorApp, PrunetuiApp
from prunetui.tui.screens.inspector import Inspector
from prunetui.tui.session_port import SessionPort
from prunetui.tui.widgets.panel import Panel
from rich.table import Table
from textual.pilot import Pilot
from textual.widgets import Input, Static, TextArea

from .traces import make_trace

SIZE = (120, 40)
both_sizes = pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])


def live(session: SessionPort) -> PrunetuiApp:
    def open_session(options: Options, record_to: Path | None, progress: Progress) -> SessionPort:  # noqa: ARG001
        progress("loading", 0.5)
        return session

    return PrunetuiApp(Options(), None, open_session=open_session)


def replay(trace: Trace | None = None, theme: str | None = None) -> InspectorApp:
    return PrunetuiApp.replay(trace or make_trace(20), Path("some.trace.jsonl"), theme=theme)


def inspector(app: InspectorApp) -> Inspector:
    screen = app.screen_stack[0]
    assert isinstance(screen, Inspector)
    return screen


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    """Let the application and its threads work until the condition holds."""
    for _ in range(2000):
        if condition():
            return
        await pilot.pause(0.005)
    raise AssertionError("it never came about")


async def ready(pilot: Pilot[None], app: InspectorApp) -> Inspector:
    await until(pilot, lambda: inspector(app).trace is not None)
    await until(pilot, lambda: panel_text(app, "#status"))
    return inspector(app)


async def settle(pilot: Pilot[None]) -> None:
    """Let the application draw every frame that was asked for."""
    assert isinstance(pilot.app, InspectorApp)
    screen = inspector(pilot.app)
    await pilot.pause()
    await until(pilot, lambda: not screen.pending)
    await pilot.pause()


def panel_text(app: InspectorApp, selector: str) -> str:
    """The panel as drawn, a line each."""
    panel = inspector(app).query_one(selector, Panel)
    return "\n".join(panel.render_line(y).text for y in range(panel.size.height))


def cells_of(table: Static) -> list[str]:
    """The text of a table's cells, column by column."""
    assert isinstance(table.content, Table)
    return [str(cell) for column in table.content.columns for cell in column.cells]


def notices(app: InspectorApp) -> list[str]:
    return [notification.message for notification in app._notifications]


def dialog_problem(app: InspectorApp) -> str:
    return str(app.screen.query_one(".dialog-problem").visual)


def view_text(app: InspectorApp) -> str:
    """What the chosen view draws, a line each."""
    screen = inspector(app)
    region = screen.query_one("#views").region
    strips = screen._compositor.render_strips()
    return "\n".join(strip.text for strip in strips[region.y : region.bottom])


async def keep_the_cursor_still(pilot: Pilot[None]) -> None:
    for field in pilot.app.screen.query("Input, TextArea"):
        assert isinstance(field, Input | TextArea)
        field.cursor_blink = False
    await pilot.pause()
