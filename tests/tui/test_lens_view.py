"""View 2 through the logit lens: its modes, what it draws, and reading a step by key."""

from pathlib import Path

import pytest
from msgspec.structs import replace
from prunetui.engine.trace.file import read_trace
from prunetui.engine.trace.trace import Trace
from prunetui.tui.app import InspectorApp
from prunetui.tui.views.layers import LENS, MAP, RAW_LENS, LayersView
from prunetui.tui.widgets.lens_panel import LensPanel
from textual import events
from textual.pilot import Pilot

from ..support.fake_session import FakeSession
from ..support.screens import both_sizes, inspector, live, ready, replay, settle, until, view_text
from ..support.steps import present
from ..support.traces import make_lens, make_trace


def read_trace_of(steps: int, read: int, *, local: bool = False) -> Trace:
    trace = make_trace(steps)
    trace.set_lens(read, make_lens(local=local))
    return trace


def mode(app: InspectorApp) -> str:
    return inspector(app).query_one(LayersView).mode


@both_sizes
def test_the_lens(snap_compare, size: tuple[int, int]) -> None:
    async def choose(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, InspectorApp)
        await pilot.press("down", "l")
        await until(pilot, lambda: "nats" in view_text(app))
        await settle(pilot)

    path = Path(__file__).parents[1] / "data" / "lens.trace.jsonl"
    app = replay(read_trace(path), path)
    assert snap_compare(app, terminal_size=size, run_before=choose)


async def test_l_leads_to_the_lens_and_through_its_modes() -> None:
    app = replay(read_trace_of(5, 4))
    async with app.run_test(size=(120, 40)) as pilot:
        modes = []
        for _ in range(4):
            await pilot.press("l")
            modes.append((inspector(app).chosen_view, mode(app)))
        assert modes == [("layers", m) for m in (LENS, RAW_LENS, MAP, LENS)]


async def test_a_line_per_layer_says_what_it_would_say_and_what_it_adds() -> None:
    app = replay(read_trace_of(5, 4))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("l")
        await until(pilot, lambda: "nats" in view_text(app))
        lines = [line.split() for line in view_text(app).splitlines()]
        # Lane 1: drop:attn=1 drops the attention of layer 1; its token differs from there on.
        assert ["in", '"', 'the"', ".00", '"', 'the"', ".00"] in lines
        added = ["0", "0.500", "0.938", "10.0", "0.100", "0.500", "0.938", "10.1"]
        assert ["0", '"', 'the"', ".29", '"', 'the"', ".29", *added] in lines
        dropped = ["✕", "dropped", "0.300", "0.500", "0.938", "10.4"]
        assert ["1", '"', 'the"', ".57", '"[/foo]"', ".57", *dropped] in lines
        await pilot.press("l")
        await until(pilot, lambda: "raw5" in view_text(app))
        assert "without the norm" in view_text(app)


async def test_on_the_baselines_tokens_where_there_are_such() -> None:
    app = replay(read_trace_of(5, 4, local=True))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("l")
        await until(pilot, lambda: "Not read: the lane has ended" in view_text(app))
        await pilot.press("down")
        await until(pilot, lambda: "on the baseline's tokens" in view_text(app))


async def test_a_replay_says_how_a_step_is_read() -> None:
    app = replay(read_trace_of(5, 2))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("l")
        await until(pilot, lambda: "This step is not read" in view_text(app))
        assert "--lens" in view_text(app)


async def test_pages_of_a_deep_model() -> None:
    trace = make_trace(1)
    deep = trace.header
    trace.header = replace(deep, model=replace(deep.model, layers=60))
    trace.set_lens(0, make_lens(layers=60))
    app = replay(trace)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("l")
        await until(pilot, lambda: "in" in view_text(app) and " more" in view_text(app))
        tops = []
        for key in ("pagedown", "pagedown", "pagedown", "pagedown", "pageup"):
            await pilot.press(key)
            await pilot.pause()
            tops.append(view_text(app).splitlines()[3].split()[0])
        # 19 lines a page, of 61: the last page ends with layer 59.
        assert tops == ["17", "35", "41", "41", "23"]


async def test_the_wheel_scrolls() -> None:
    app = replay(read_trace_of(5, 4))
    async with app.run_test(size=(80, 16)) as pilot:
        trace = present(inspector(app).trace)
        trace.header = replace(trace.header, model=replace(trace.header.model, layers=60))
        trace.set_lens(4, make_lens(layers=60))
        await pilot.press("l")
        await until(pilot, lambda: "more" in view_text(app))
        panel = inspector(app).query_one(LensPanel)
        tops = []
        for turn in (events.MouseScrollDown, events.MouseScrollDown, events.MouseScrollUp):
            panel.post_message(turn(panel, 0, 0, 0, 1, 0, False, False, False))
            await pilot.pause()
            tops.append(view_text(app).splitlines()[3].split()[0])
        # The first line, above layer 0, is what goes in.
        assert tops == ["2", "5", "2"]


async def test_a_narrow_screen_shows_fewer_figures_and_readable_tokens() -> None:
    app = replay(read_trace_of(5, 4))
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.press("l")
        await until(pilot, lambda: "KL nats" in view_text(app))
        lines = [line.split() for line in view_text(app).splitlines()]
        assert ["0", '"', 'the"', '"', 'the"', "0.938", "10.0", "0.938", "10.1"] in lines


@pytest.mark.parametrize("view", ["", "2"])
async def test_l_reads_the_step_at_the_cursor(view: str) -> None:
    session = FakeSession()
    app = live(session)
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot, app)
        for _ in range(3):
            await pilot.press("right")
        await until(pilot, lambda: len(session.trace.steps) == 3)
        await pilot.press("left", *view, "l")
        await until(pilot, lambda: session.trace.steps[1].lens is not None)
        await until(pilot, lambda: "nats" in view_text(app))
        assert [step.lens is not None for step in session.trace.steps] == [False, True, False]
        # Another step in this mode is read, not passed over.
        await pilot.press("right", "l")
        await until(pilot, lambda: session.trace.steps[2].lens is not None)
        assert mode(app) == LENS


async def test_a_step_that_is_read_while_decoding_stays_at_the_cursor() -> None:
    session = FakeSession(most=100_000)
    app = live(session)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await ready(pilot, app)
        await pilot.press("space")
        await until(pilot, lambda: len(session.trace.steps) > 3)
        await pilot.press("l")
        await until(pilot, lambda: any(step.lens for step in session.trace.steps))
        (read,) = (step.step for step in session.trace.steps if step.lens)
        await until(pilot, lambda: len(session.trace.steps) > read + 3)
        assert screen.cursor == read
        assert "nats" in view_text(app)
