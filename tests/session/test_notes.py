"""Notes of a trace's header, wherever its numbers are read."""

from pathlib import Path

import msgspec
import pytest
from prunetui.engine.options import Options
from prunetui.engine.trace.export.formats import FORMATS
from prunetui.engine.trace.file import TraceWriter, read_trace
from prunetui.engine.trace.trace import Trace
from prunetui.tui.app import PrunetuiApp
from prunetui.tui.cli.record import record
from prunetui.tui.screens.help import HelpScreen
from textual.widgets import Static

from ..support.models import make_model, make_tokenizer
from ..support.screens import panel_text
from ..support.traces import make_header, make_trace

HOSTILE = "It says [bold]no[/] <b>&\x1b[31m `to` it."


def exported(trace: Trace, form: str) -> str:
    content = FORMATS[form](trace)
    assert isinstance(content, str)
    return content


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("md", "Note: `` It says [bold]no[/] <b>&␛[31m `to` it. ``"),
        ("html", "<b>Note:</b> It says [bold]no[/] &lt;b&gt;&amp;␛[31m `to` it.</p>"),
        ("json", '"notes": [\n   "It says [bold]no[/] <b>&\\u001b[31m `to` it."'),
    ],
)
def test_exports_say_them(form: str, expected: str) -> None:
    trace = make_trace(4)
    assert expected not in exported(trace, form)
    trace.header = msgspec.structs.replace(trace.header, notes=[HOSTILE])
    assert expected in exported(trace, form)


def test_they_are_read_again(tmp_path: Path) -> None:
    header = msgspec.structs.replace(make_header(), notes=[HOSTILE])
    TraceWriter(tmp_path / "a.trace.jsonl", header).close()
    assert read_trace(tmp_path / "a.trace.jsonl").header == header


def test_record_prints_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model("llama")
    model.generation_config.repetition_penalty = 1.3
    model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    options = Options(
        model=str(tmp_path), prompt="x", variants=("control",), max_new_tokens=2, ignore_eos=True
    )
    record(options, None)
    assert (
        "Note: The model's generation settings say repetition_penalty 1.3; decoding here does not "
        "follow them.\n"
    ) in capsys.readouterr().out


@pytest.mark.parametrize("width", [60, 80, 120])
async def test_the_screen_counts_them_and_the_help_says_them(width: int) -> None:
    trace = make_trace(4)
    for count, mark in ((0, ""), (1, "! 1 note "), (2, "! 2 notes ")):
        trace.header = msgspec.structs.replace(trace.header, notes=[HOSTILE] * count)
        app = PrunetuiApp.replay(trace, Path("some.trace.jsonl"))
        async with app.run_test(size=(width, 24)) as pilot:
            await pilot.pause()
            assert ("!" in panel_text(app, "#status")) == bool(count)
            assert mark in panel_text(app, "#status")
            await pilot.press("question_mark")
            assert isinstance(app.screen, HelpScreen)
            titles = [
                str(title.visual)
                for title in app.screen.query(".dialog-title").results(Static)
                if title.display
            ]
            assert ("Notes on the numbers" in titles) == bool(count)
            assert titles[0] == ("Notes on the numbers" if count else "Keys")
