"""Export dialog: formats, names, places, and what cannot be written."""

from pathlib import Path

import pytest
from prunetui.engine.trace.export.formats import FORMATS, to_csv, to_json
from prunetui.engine.trace.export.html import to_html
from prunetui.tui.app import InspectorApp, PrunetuiApp
from prunetui.tui.screens.export import ExportDialog
from prunetui.tui.screens.inspector import Inspector
from prunetui.tui.user.state_files import Settings, change_settings, read_settings
from prunetui.tui.widgets.fields import TextField
from prunetui.tui.widgets.format_list import DESCRIPTIONS, FormatList

from ..support.fake_session import FakeSession
from ..support.screens import (
    dialog_problem,
    inspector,
    live,
    notices,
    ready,
    screen_lines,
    until,
)
from ..support.traces import make_trace

TRACE = make_trace(20)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, which is not that of the trace."""
    directory = tmp_path / "work"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def replayed(tmp_path: Path) -> InspectorApp:
    return PrunetuiApp.replay(TRACE, tmp_path / "state" / "some.trace.jsonl")


def proposed(app: InspectorApp) -> str:
    return app.screen.query_one(TextField).raw_text


def test_every_format_has_a_letter_of_its_own() -> None:
    assert [*DESCRIPTIONS] == [*FORMATS, "svg"]
    assert len({name[0] for name in DESCRIPTIONS}) == len(DESCRIPTIONS)


async def test_html_takes_three_keys_and_then_two(work: Path, tmp_path: Path) -> None:
    app = replayed(tmp_path)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.press("e", "h", "enter")
        assert isinstance(app.screen, Inspector)
        assert notices(app) == [f"Written: {work / 'some.html'}"]
        await pilot.press("e", "enter")
        assert isinstance(app.screen, Inspector)
    assert sorted(path.name for path in work.iterdir()) == ["some-2.html", "some.html"]
    for name in ("some.html", "some-2.html"):
        assert (work / name).read_text("utf-8") == to_html(TRACE)
    assert read_settings() == Settings(export_format="html")


async def test_a_live_session_is_exported_to_the_working_directory(
    work: Path, tmp_path: Path
) -> None:
    session = FakeSession()
    app = live(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, app)
        await pilot.press("e")
        assert proposed(app) == str(work / "prunetui.csv")
        await pilot.press("escape")
        session.recording = tmp_path / "state" / "one.trace.jsonl"
        await pilot.press("e")
        assert proposed(app) == str(work / "one.csv")


async def test_arrows_and_letters_choose_a_format_with_a_free_name(
    work: Path, tmp_path: Path
) -> None:
    (work / "some.csv").write_text("mine")
    (work / "some-2.csv").write_text("mine")
    (work / "some.json").symlink_to("nowhere")
    app = replayed(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("e")
        assert proposed(app) == str(work / "some-3.csv")
        await pilot.press("down")
        assert proposed(app) == str(work / "some.parquet")
        await pilot.press("up", "up")
        assert proposed(app) == str(work / "some.svg")
        for letter, name in (
            ("m", "some.md"),
            ("j", "some-2.json"),
            ("c", "some-3.csv"),
            ("p", "some.parquet"),
        ):
            await pilot.press(letter)
            assert proposed(app) == str(work / name)
        await pilot.press("c", "enter")
    assert (work / "some-3.csv").read_text("utf-8") == to_csv(TRACE)
    assert [(work / name).read_text("utf-8") for name in ("some.csv", "some-2.csv")] == ["mine"] * 2


async def test_a_name_that_was_typed_stays_and_letters_are_text_there(
    work: Path, tmp_path: Path
) -> None:
    app = replayed(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("e", "tab", "ctrl+a", *"chm.json")
        assert proposed(app) == "chm.json"
        await pilot.press("shift+tab", "h")
        assert proposed(app) == "chm.html"
        app.screen.query_one(TextField).put("v1.5")
        await pilot.press("j")
        assert proposed(app) == "v1.5.json"
        await pilot.press("tab", "enter")
    assert (work / "v1.5.json").read_text("utf-8") == to_json(TRACE)
    assert read_settings().export_format == "json"


async def test_what_exists_or_cannot_be_written_is_said(work: Path, tmp_path: Path) -> None:
    app = replayed(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("e")
        field = app.screen.query_one(TextField)
        (work / "mine.csv").write_text("mine")
        for name, sentence in (
            (str(work / "mine.csv"), "exists already"),
            (str(work / "none" / "some.md"), "No such file or directory"),
            (str(work / "mine.csv" / "some.md"), "Not a directory"),
            ("some.txt", "The file's name must end in .csv, .parquet, .json, .md, .html, .svg."),
        ):
            field.put(name)
            await pilot.press("enter")
            assert sentence in dialog_problem(app)
            assert isinstance(app.screen, ExportDialog)
        assert (work / "mine.csv").read_text() == "mine"
        await pilot.press("escape")
        assert isinstance(app.screen, Inspector)
    assert read_settings() == Settings()


async def test_a_working_directory_that_takes_no_file_is_said(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = replayed(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        # A superuser may write anywhere.
        with monkeypatch.context() as patch:
            patch.setattr("os.access", lambda *_: False)
            await pilot.press("e")
        assert dialog_problem(app) == f"Nothing can be written in {work}; name a file elsewhere."
        await pilot.press("escape")
        work.rmdir()
        monkeypatch.setenv("HOME", str(tmp_path))
        await pilot.press("e")
        assert (
            dialog_problem(app) == "The working directory is gone; the file would go to your home."
        )
        assert proposed(app) == str(tmp_path / "some.csv")


async def test_a_format_that_there_is_not_any_more_is_not_remembered(
    work: Path, tmp_path: Path
) -> None:
    change_settings(export_format="docx")
    app = replayed(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("e")
        assert proposed(app) == str(work / "some.csv")


@pytest.mark.usefixtures("work")
async def test_everything_of_it_is_on_the_smallest_screen(tmp_path: Path) -> None:
    app = replayed(tmp_path)
    async with app.run_test(size=(60, 16)) as pilot:
        await until(pilot, lambda: inspector(app).trace)
        await pilot.press("e")
        dialog = app.screen
        assert isinstance(dialog, ExportDialog)
        dialog.refuse("A sentence.")
        await pilot.pause()
        text = "\n".join(screen_lines(dialog))
        for part in ("Export the trace", *DESCRIPTIONS, "A sentence.", "Write", "Cancel"):
            assert part in text, part
        assert dialog.query_one(FormatList).size.height == len(DESCRIPTIONS)
