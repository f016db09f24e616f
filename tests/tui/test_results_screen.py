"""The screens of an evaluation: its table, the items of a cell, and an item as a session."""

from pathlib import Path

import msgspec
import pytest
from prunetui.engine.errors import OptionError
from prunetui.engine.options import Options
from prunetui.engine.progress import Progress
from prunetui.engine.results.comparison import compare
from prunetui.engine.results.file import ResultsFollower, ResultsWriter
from prunetui.engine.results.records import SUFFIX
from prunetui.engine.results.results import Results
from prunetui.engine.trace import figures
from prunetui.tui.app import InspectorApp, PrunetuiApp
from prunetui.tui.screens.help import HelpScreen
from prunetui.tui.screens.item_session import ItemInspector, ItemSessions
from prunetui.tui.screens.items import ItemsScreen
from prunetui.tui.screens.results import ResultsScreen
from prunetui.tui.session_port import SessionPort
from prunetui.tui.user.recorded_sessions import sessions_directory
from textual.app import App
from textual.pilot import Pilot

from ..support.fake_session import FakeSession
from ..support.results import make_end, make_header, make_item, make_results, write_results
from ..support.screens import SIZE, both_sizes, notices, screen_lines, until


class ItemSession(FakeSession):
    """A session that says which options it was opened with, and how often."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[Options] = []
        self.record_to: Path | None = None
        self.refusals: list[Exception] = []
        """Errors of the next openings."""

    def open(self, options: Options, record_to: Path | None, progress: Progress) -> SessionPort:
        self.opened.append(options)
        if self.refusals:
            raise self.refusals.pop(0)
        self.record_to, self.progress = record_to, progress
        header = self.trace.header
        tokens = [*(options.prompt_tokens or ())]
        prompt = msgspec.structs.replace(header.prompt, tokens=tokens, chat_template=False)
        self.trace.header = msgspec.structs.replace(header, prompt=prompt, options=options)
        return self


def results_app(path: Path, session: ItemSession | None = None) -> InspectorApp:
    session = session or ItemSession()
    return PrunetuiApp.results(ResultsFollower(path), session.open)


def text_of(app: App[None]) -> str:
    return "\n".join(screen_lines(app.screen))


async def shows(pilot: Pilot[None], *texts: str) -> str:
    """Wait until the screen on top shows all of these, and return all that it shows."""
    await until(pilot, lambda: all(text in text_of(pilot.app) for text in texts))
    return text_of(pilot.app)


def items_screen(app: App[None]) -> ItemsScreen:
    (screen,) = [screen for screen in app.screen_stack if isinstance(screen, ItemsScreen)]
    return screen


def index(app: App[None]) -> int:
    """Index of the item that is selected."""
    row = items_screen(app).row
    assert row is not None
    return row.item.index


# -- the table ------------------------------------------------------------------------------------


@both_sizes
def test_the_table(snap_compare, size: tuple[int, int], tmp_path: Path) -> None:
    async def choose(pilot: Pilot[None]) -> None:
        await shows(pilot, "agreement")
        await pilot.press("down", "down", "down", "right")
        await shows(pilot, "generation · drop:mlp=1")

    assert snap_compare(results_app(write_results(tmp_path)), terminal_size=size, run_before=choose)


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_a_cell_tells_all_its_numbers(tmp_path: Path, size: tuple[int, int]) -> None:
    choice, _, likelihood, generation, retrieval = compare(make_results())
    app = results_app(write_results(tmp_path))
    async with app.run_test(size=size) as pilot:
        await shows(pilot, "24 items", "choice (1 task)", "* p < .05")
        cell = choice.cells[1]
        assert cell.main is not None
        assert cell.main.interval is not None
        shown = await shows(pilot, f"score       {figures.score(cell.main.value)} ± ")
        low, high = map(figures.score_difference, cell.main.interval)
        for text in (
            f"{figures.score_difference(cell.main.delta)} · 95% [{low}, {high}] paired",
            f"p {figures.p_value(cell.main.p)}, exact McNemar",
            f"✗ {cell.main.lost} right → wrong · ✓ {cell.main.gained} wrong → right",
            f"{figures.share(cell.agreement)} answer as the baseline does",
            f"{figures.nats(cell.kl)} at the answering position, local",
            f"{figures.nats(cell.kl_options)}: KL(p‖q) among the options",
            f"h {figures.cosine(cell.cos_h)} · z {figures.cosine(cell.cos_z)} · "
            f"p {figures.cosine(cell.cos_p)}",
            f"{cell.ties} of 6: best two options within the noise floor",
        ):
            assert text in shown
        await pilot.press("down", "down", "right")
        cell = likelihood.cells[2]
        # A score that is no mean has neither an interval nor a test.
        shown = await shows(pilot, "likelihood · drop:mlp=1", "perplexity ↓", "Δ           +2.000")
        assert "95%" not in shown.partition("likelihood · drop:mlp=1")[2]
        await pilot.press("down")
        cell = generation.cells[2]
        await shows(
            pilot,
            f"{figures.share(cell.divergent)} differ",
            f"{figures.share(cell.collapse)} collapse",
            f"{figures.nats(cell.kl_local)} over the baseline's tokens, local",
        )
        await pilot.press("end", "left")
        cell = retrieval.cells[1]
        await shows(
            pilot,
            f"overlap@10  {figures.share(cell.overlap)} of the baseline's ten best",
            f"cosine      {figures.cosine(cell.cosine)} of the queries' embeddings",
            "sign flips",
        )
        await pilot.press("left", "left", "home")
        shown = await shows(pilot, "choice · baseline")
        assert "Δ  " not in shown.partition("choice · baseline")[2]


async def test_a_file_that_grows_is_followed_until_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / f"run{SUFFIX}"
    writer = ResultsWriter(path, make_header(items=4, kinds=["generation", "options"]))
    app = results_app(path)
    async with app.run_test(size=(80, 24)) as pilot:
        shown = await shows(pilot, "running: 0 of 8 items", "0/4")
        assert shown.count("–") >= 6
        await pilot.press("enter")
        await shows(pilot, "No item is answered yet.", "0 answered of 4")
        await pilot.press("escape")
        writer.write([make_item("generation", 0), make_item("generation", 1)])
        await shows(pilot, "running: 2 of 8 items", "2/4")
        await pilot.press("enter")
        await shows(pilot, "2 answered of 4")
        await pilot.press("enter", "q")
        for number in (2, 3):
            writer.write([make_item("generation", number)])
        writer.write([make_end("generation")])
        writer.close()
        await until(pilot, lambda: isinstance(app.screen, ItemsScreen))
        assert "2 answered of 4" in text_of(app)
        await pilot.press("q")
        await shows(pilot, "stopped: 4 of 8 items")
        writer, _ = ResultsWriter.resume(path)
        writer.write([*(make_item("options", n) for n in range(4)), make_end("options")])
        await shows(pilot, "─ 8 items")
        writer.close()


async def test_damage_is_said_and_what_is_before_it_stays(tmp_path: Path) -> None:
    path = tmp_path / f"run{SUFFIX}"
    writer = ResultsWriter(path, make_header(items=4, kinds=["generation"]))
    writer.write([make_item("generation", 0)])
    app = results_app(path)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await shows(pilot, "running: 1 of 4 items")
        with path.open("ab") as file:
            file.write(b"nonsense\n")
        await shows(pilot, "damaged: the 1 items before are shown")
        await until(pilot, lambda: notices(app))
        assert notices(app)[0].startswith(f"line 3 of {path} is damaged")
        await pilot.press("enter")
        await shows(pilot, "1 answered of 4")
    writer.close()


@pytest.mark.parametrize("variants", [0, 1, 12])
async def test_any_number_of_lanes_of_any_name(tmp_path: Path, variants: int) -> None:
    header = make_header(2, kinds=["options"])
    name = "\x1b]52;c;aGk=\x07 [b]漢字[/b] a name that is longer than its column"
    lane = msgspec.structs.replace(header.lanes[1], name=name)
    task = msgspec.structs.replace(header.tasks[0], name=name, group=None)
    header = msgspec.structs.replace(
        header,
        tasks=[task],
        lanes=[header.lanes[0], *[lane] * variants],
        fingerprints=["weights"] * (variants + 1),
    )
    path = tmp_path / f"run{SUFFIX}"
    writer = ResultsWriter(path, header)
    made = make_item("options", 0)
    answers = [made.answers[0], *[made.answers[1]] * variants]
    item = msgspec.structs.replace(
        made, task=name, answers=answers, drift=[made.drift[0]] * variants
    )
    writer.write([item])
    writer.close()
    app = results_app(path)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "stopped: 1 of 6 items", "␛]52;c;aGk=␇ [b]漢字")
        await pilot.press(*["right"] * variants)
        last = await shows(pilot, "baseline" if not variants else "0.")
        assert "more lane" in last or variants < 3
        await pilot.press("enter", "f", "f", "right", "left", "space")
        shown = await shows(pilot, "1 answered of 6", "A[INST]")
        assert "\x1b" not in shown


# -- the items ------------------------------------------------------------------------------------


@both_sizes
def test_the_items(snap_compare, size: tuple[int, int], tmp_path: Path) -> None:
    async def choose(pilot: Pilot[None]) -> None:
        await shows(pilot, "agreement")
        await pilot.press("down", "enter", "down")
        await shows(pilot, "option", "gold")

    assert snap_compare(results_app(write_results(tmp_path)), terminal_size=size, run_before=choose)


async def test_flips_come_first_and_keys_filter_and_change_the_lane(tmp_path: Path) -> None:
    app = results_app(write_results(tmp_path, items=12))
    async with app.run_test(size=SIZE) as pilot:
        await shows(pilot, "48 items")
        await pilot.press("down", "enter")
        await shows(pilot, "options · drop:attn=1", "12 items")
        rows = items_screen(app).rows
        # The baseline is wrong at every fourth item from 3 on, the lane at every third from 2 on.
        assert {row.item.index for row in rows[:3]} == {2, 5, 8}
        assert {row.item.index for row in rows[3:5]} == {3, 7}
        drift = [row.distance for row in rows[:3]]
        assert drift == sorted(drift, reverse=True)
        marks = [line[3] for line in screen_lines(app.screen)[2:14]]
        assert marks == [*"✗✗✗✓✓", *"      ", " "]
        await pilot.press("f")
        await shows(pilot, "only ✗ and ✓, 5 of 12")
        await pilot.press("f", "slash", *"mred")
        await shows(pilot, "2 of 12")
        await pilot.press("enter", "down")
        chosen = index(app)
        await pilot.press("right")
        await shows(pilot, "options · drop:mlp=1", "2 of 12")
        assert index(app) == chosen
        await pilot.press("right")
        await shows(pilot, "options · baseline")
        assert index(app) == chosen
        await pilot.press("escape")
        await shows(pilot, "12 items")
        await pilot.press("question_mark", *"margin")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await shows(pilot, "second, in nats")
        await pilot.press("escape", "escape")
        await until(pilot, lambda: isinstance(app.screen, ItemsScreen))
        await pilot.press("ctrl+p", *"flips", "enter")
        await shows(pilot, "No item is ✗ or ✓ here; f lists all.")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, ResultsScreen))
        await shows(pilot, "▸   options")
        await pilot.press("q")
    assert app.return_code == 0


async def test_an_item_shows_its_whole_text_with_escapes_visible(tmp_path: Path) -> None:
    app = results_app(write_results(tmp_path, items=8))
    async with app.run_test(size=SIZE) as pilot:
        await shows(pilot, "32 items")
        await pilot.press("down", "down", "down", "enter")
        await shows(pilot, "generation · drop:attn=1")
        screen = items_screen(app)
        place = next(n for n, row in enumerate(screen.rows) if row.item.index == 2)
        await pilot.press("home", *["down"] * place)
        shown = await shows(pilot, "baseline · 3 tokens")
        # "yes ESC[31mred" and "no ESC]52;…" differ from the first character on.
        assert "◆yes ␛[31mred" in shown
        assert "◆no ␛]52;c;aGk=␇" in shown
        assert 'taken by strict-match: "yes" → "[invalid]"' in shown
        assert 'at most 32 new ones, up to "\\n\\n", "Q:"' in shown
        assert "baseline → lane: exact_match,strict-match ↑ 1.000 → 0.000" in shown
        assert "\x1b" not in shown
        await pilot.press("escape", "down", "enter")
        await shows(pilot, "retrieval · drop:attn=1", " 1  doc", "10  doc", "rel 1")


async def test_a_long_text_is_paged_and_thousands_of_items_are_listed(tmp_path: Path) -> None:
    results = make_results(items=1, kinds=["options"])
    header = results.header
    task = msgspec.structs.replace(header.tasks[0], items=5000, group=None)
    header = msgspec.structs.replace(header, tasks=[task])
    item = results.items["options"][0]
    context = "\n".join(f"line {number}" for number in range(120))
    items = [
        msgspec.structs.replace(item, index=n, question=f"Q{n}", contexts=[context])
        for n in range(5000)
    ]
    app = results_app(write_results(tmp_path))
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "24 items")
        (compared,) = compare(Results(header, {"options": items}))
        sessions = ItemSessions(app, ItemSession().open)
        app.push_screen(ItemsScreen(header, compared, items, 1, sessions))
        await shows(pilot, "5000 items", "space: more")
        await pilot.press("end")
        shown = await shows(pilot, "options 4999")
        assert "Q4999" in shown
        seen = ""
        for _ in range(30):
            seen += text_of(app)
            await pilot.press("space")
            if "from line" not in text_of(app):
                break
        else:
            raise AssertionError("the last page is not followed by the first")
        assert all(f"line {number}⏎" in seen for number in range(119))
        await pilot.press("space", "b")
        assert "from line" not in text_of(app)


# -- an item as a session -------------------------------------------------------------------------


async def test_an_item_opens_as_a_session_and_the_model_stays(tmp_path: Path) -> None:
    session = ItemSession()
    app = results_app(write_results(tmp_path, items=12), session)
    async with app.run_test(size=SIZE) as pilot:
        await shows(pilot, "48 items")
        await pilot.press("down", "right", "enter", "down", "down")
        await shows(pilot, "options · drop:mlp=1")
        first, place = index(app), items_screen(app).selected
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ItemInspector))
        inspector = app.screen
        assert isinstance(inspector, ItemInspector)
        # The view of the answers shows step 0, of the lane that was looked at.
        await until(pilot, lambda: inspector.trace is not None and len(inspector.trace.steps) == 1)
        assert (inspector.chosen_view, inspector.lane) == ("subspace", 2)
        assert session.opened[0].prompt_tokens == tuple(make_item("options", first).tokens)
        assert session.opened[0].answer_tokens == (5, 6, 7, 8)
        assert session.record_to is not None
        assert session.record_to.parent == sessions_directory()
        await pilot.press("1", "escape")
        assert inspector.chosen_view == "subspace"
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, ItemsScreen))
        assert (index(app), items_screen(app).selected) == (first, place)
        # Another item: the same session, which shows nothing of the first until it is read.
        session.released.clear()
        await pilot.press("down", "enter")
        await shows(pilot, "reading the prompt")
        second = index(app)
        assert inspector.trace is None
        session.released.set()
        await until(pilot, lambda: inspector.trace is not None)
        trace = inspector.trace
        assert trace is not None
        assert trace.header.prompt.tokens == make_item("options", second).tokens
        await until(pilot, lambda: len(trace.steps) == 1)
        # What was decoded is there when the same item is opened again.
        await pilot.press("right")
        await until(pilot, lambda: len(trace.steps) == 2)
        await pilot.press("q", "enter")
        await until(pilot, lambda: app.screen is inspector)
        assert (inspector.trace, len(trace.steps), len(session.opened)) == (trace, 2, 1)
        await pilot.press("q", "escape", "down", "down", "enter", "enter")
        # A generation is opened where it begins.
        await until(pilot, lambda: inspector.trace not in (None, trace))
        assert (inspector.chosen_view, len(session.trace.steps)) == ("overview", 0)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, ItemsScreen))
        assert not session.closed.is_set()
    assert session.closed.is_set()


async def test_a_model_that_cannot_be_loaded_leaves_list_and_texts(tmp_path: Path) -> None:
    session = ItemSession()
    session.refusals = [OptionError("there is no model tiny here; -m names it"), MemoryError()]
    app = results_app(write_results(tmp_path), session)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "24 items")
        await pilot.press("down", "enter", "enter")
        await shows(pilot, "there is no model tiny here; -m names it", "q leads back to the list")
        # Keys that need a session do nothing harmful without one.
        await pilot.press("space", "right", "p", "c", "v", "a", "e", "y", "x", "n")
        assert isinstance(app.screen, ItemInspector)
        await pilot.press("escape")
        await shows(pilot, "option", "gold")
        await pilot.press("down", "enter")
        await shows(pilot, "something went wrong in prunetui itself", "r tries again")
        await pilot.press("r")
        await until(pilot, lambda: app.screen.query_one("#status").display)
        assert len(session.opened) == 3
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, ItemsScreen))


async def test_an_item_that_is_refused_shows_nothing_of_another(tmp_path: Path) -> None:
    session = ItemSession()
    app = results_app(write_results(tmp_path), session)
    async with app.run_test(size=SIZE) as pilot:
        await shows(pilot, "24 items")
        await pilot.press("down", "enter", "enter")
        await until(pilot, lambda: len(session.trace.steps) == 1)
        await pilot.press("q", "down")
        restart = session.restart

        def refuse(**_: object) -> None:
            raise OptionError("the prompt is longer than the model's context")

        session.restart = refuse  # type: ignore[method-assign]
        await pilot.press("enter")
        await shows(pilot, "the prompt is longer than the model's context")
        assert isinstance(app.screen, ItemInspector)
        assert app.screen.trace is None
        session.restart = restart  # type: ignore[method-assign]
        await pilot.press("q", "up", "enter")
        await until(pilot, lambda: isinstance(app.screen, ItemInspector) and app.screen.trace)
        assert len(session.opened) == 1
