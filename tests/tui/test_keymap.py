"""The person's own keys: they work, they are shown, and a file that is wrong is named."""

import os
from pathlib import Path

import pytest
from prunetui.engine.errors import UserError
from prunetui.tui.screens.help import HelpScreen
from prunetui.tui.screens.keys import KEYS
from prunetui.tui.user.keymap import load_keys
from textual.widgets import Static

from ..support.screens import cells_of, inspector, notices, panel_text, replay, until


@pytest.fixture
def file() -> Path:
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "prunetui" / "keys.toml"
    path.parent.mkdir(parents=True)
    return path


def test_keys_are_called_as_textual_calls_them(file: Path) -> None:
    file.write_text('help = ["?", "f1"]\nback = ";"\nplay = ["ctrl+space", "P", ","]\nlast = "G"')
    assert load_keys(KEYS) == {
        "help": "question_mark,f1",
        "back": "semicolon",
        "play": "ctrl+space,P,comma",
        "last": "G",
    }


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("play = ", "Invalid value"),
        ("play = 3", "Expected `str | array`, got `int`"),
        ('fly = "f"', "nothing is called fly"),
        ('play = "spaec"', "there is no key 'spaec'"),
        ('play = "hyper+x"', "there is no key 'hyper+x'"),
        ('play = ""', "there is no key ''"),
        ("play = []", "play has no key"),
        ('play = "q"', "q is both play and quit"),
        ('play = ["x", "x"]', "x is both play and play"),
        ('play = "ctrl+q"', "ctrl+q is both quit and play"),
    ],
)
def test_keys_that_are_wrong_are_named(file: Path, text: str, wrong: str) -> None:
    file.write_text(text)
    with pytest.raises(UserError) as raised:
        load_keys(KEYS)
    assert str(raised.value).startswith(f"the keys of {file} are not used: ")
    assert wrong in str(raised.value)


async def test_mapped_keys_work_and_are_shown(file: Path) -> None:
    file.write_text('back = ["h", "left"]\nfirst = "q"\nquit = "Q"')
    app = replay()
    async with app.run_test(size=(120, 30)) as pilot:
        await pilot.press("h", "left")
        assert inspector(app).cursor == 17
        await pilot.press("q")
        assert inspector(app).cursor == 0
        await until(pilot, lambda: "h back" in panel_text(app, "KeyLine"))
        assert "Q quit" in panel_text(app, "KeyLine")
        assert "← back" not in panel_text(app, "KeyLine")
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        tables = [cells_of(table) for table in app.screen.query(".help-rows").results(Static)]
        cells = next(cells for cells in tables if cells)
        keys = dict(zip(cells[: len(cells) // 2], cells[len(cells) // 2 :], strict=True))
        assert keys["q"] == "To the first step"
        assert keys["Q"] == "Quit"


async def test_the_built_in_keys_stay_when_the_file_is_wrong(file: Path) -> None:
    file.write_text('first = "j"\nquit = "j"')
    app = replay()
    async with app.run_test(notifications=True) as pilot:
        await until(pilot, lambda: notices(app))
        assert notices(app)[0].endswith("are not used: j is both first and quit")
        await pilot.press("left")
        assert inspector(app).cursor == 18
