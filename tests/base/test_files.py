"""Text files as other systems write them: with a byte order mark, in UTF-16."""

import json
from pathlib import Path

import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.files import read_text
from prunetui.engine.options import Options
from prunetui.engine.variants.calibration import Calibration
from prunetui.tui.user import prompt_library

TEXT = "Was ist ein Füllwort?\n漢字\n"
MARK = "\ufeff"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "prompt.txt"


@pytest.mark.parametrize("content", [TEXT, MARK + TEXT, TEXT.replace("\n", "\r\n")])
def test_a_mark_and_line_ends_are_no_text(content: str, file: Path) -> None:
    file.write_bytes(content.encode())
    assert read_text(file, "prompt file") == TEXT


def test_a_mark_that_is_not_at_the_beginning_stays(file: Path) -> None:
    file.write_bytes(f"a{MARK}b\0".encode())
    assert read_text(file, "prompt file") == f"a{MARK}b\0"


@pytest.mark.parametrize(
    ("encoding", "byte"),
    [("utf-16", 0), ("utf-16-le", 1), ("utf-16-be", 0), ("utf-32", 0), ("utf-32-be", 0)],
)
def test_another_encoding_is_named(encoding: str, byte: int, file: Path) -> None:
    file.write_bytes("What is it?".encode(encoding))
    with pytest.raises(UserError) as raised:
        read_text(file, "prompt file")
    assert str(raised.value) == (
        f"the prompt file {file} looks like UTF-16, which is not read; save it as UTF-8: "
        f"prompt.txt is not UTF-8 (byte {byte})"
    )


def test_latin_1_is_not_utf_8(file: Path) -> None:
    file.write_bytes("Füllwort".encode("latin-1"))
    with pytest.raises(UserError, match=r"is not UTF-8 \(byte 1\)$"):
        read_text(file, "prompt file")


def test_an_empty_file_is_an_empty_text(file: Path) -> None:
    file.touch()
    assert read_text(file, "prompt file") == ""


def test_a_calibration_jsonl_with_a_mark(tmp_path: Path) -> None:
    lines = [json.dumps({"text": text}) for text in ("one", "two")]
    keys = []
    for name, mark in (("a.jsonl", ""), ("b.jsonl", MARK)):
        (tmp_path / name).write_text(mark + "\n".join(lines), "utf-8")
        options = Options(calibration=str(tmp_path / name))
        keys.append(Calibration(None, options, lambda *_: None).key)  # type: ignore[arg-type]
    assert keys[0] == keys[1]
    assert keys[0][0] == "one\n\ntwo"


def test_a_prompt_of_the_library_with_a_mark() -> None:
    prompt_library.save_prompt("mine", "first")
    (prompt_library.prompts_directory() / "mine.txt").write_bytes((MARK + TEXT).encode())
    assert prompt_library.read_saved_prompt("mine") == TEXT
