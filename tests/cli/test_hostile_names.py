"""Files whose names have escape sequences: no sentence carries one to the terminal."""

from pathlib import Path

import pytest
from prunetui.tui.app import PrunetuiApp

from ..support.command_line import prunetui
from ..support.models import save_model_directory
from ..support.screens import settle
from ..support.traces import make_trace

NAME = "a\x1b]52;c;aGk=\x07\x1b[31m\x9b2J\r\u202e[b]"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names") / NAME
    return save_model_directory(folder)


def test_no_sentence_of_a_command_carries_an_escape(hostile: Path, tmp_path: Path, capsys) -> None:
    trace, model = tmp_path / f"{NAME}.trace.jsonl", ("-m", hostile)
    decoded = (*model, "-v", f"x={hostile}", "--prompt", "hi", "--max-new-tokens", 1)
    done = [
        (0, ("record", *decoded, "-o", trace)),
        (2, ("record", *decoded, "-o", trace)),
        (2, ("record", "-m", hostile / "none", "--no-trace")),
        (2, ("record", *model, "-v", hostile / "none", "--no-trace")),
        (2, ("record", "--prompt-file", hostile / "none", "--no-trace")),
        (0, ("prune", *model, "-v", "drop:attn=1", "-o", tmp_path / f"{NAME}-pruned")),
        (2, ("prune", *model, "-v", "drop:attn=1", "-o", tmp_path / f"{NAME}-pruned")),
        (0, ("rank", *model, "-o", tmp_path / f"{NAME}.json")),
        (0, ("export", trace, "-o", tmp_path / f"{NAME}.md")),
        (2, ("export", trace, "-o", tmp_path / f"{NAME}.md")),
        (2, ("export", trace, "-o", tmp_path / f"{NAME}.safetensors")),
        (2, ("export", hostile / "config.json", "-o", tmp_path / f"{NAME}.csv")),
        (2, ("replay", hostile / "none")),
    ]
    for code, arguments in done:
        assert prunetui(*arguments) == code, arguments[0]
        out, err = capsys.readouterr()
        assert not {"\x1b", "\x07", "\x9b", "\r", "\u202e"} & {*out, *err}, arguments[0]
        assert code == 0 or "␛]52" in err


async def test_a_replay_shows_the_name_with_its_escapes_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = PrunetuiApp.replay(make_trace(3), tmp_path / f"{NAME}.trace.jsonl")
    async with app.run_test(size=(160, 24)) as pilot:
        await settle(pilot)
        await pilot.press("e")
        picture = app.export_screenshot()
        assert "␛]52" in picture
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*picture}
        await pilot.press("enter")
        assert (tmp_path / f"{NAME}.csv").exists()
