"""The editor of prompt and sampling: what it decodes, what it refuses, and its library."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.options import POSTER_QUESTION, Options
from prunetui.engine.trace.records import Sampling
from prunetui.tui.app import InspectorApp, PrunetuiApp
from prunetui.tui.screens.ask import AskDialog
from prunetui.tui.screens.prompt import NUMBERS, Decoding, PromptEditor
from prunetui.tui.user.prompt_library import (
    BUILT_IN_PROMPTS,
    prompts_directory,
    read_saved_prompt,
    save_prompt,
    saved_prompt_names,
)
from prunetui.tui.widgets.fields import TextBox, TextField, Tick
from prunetui.tui.widgets.loading import LoadingPanel
from textual import events
from textual.pilot import Pilot
from textual.widgets import Button, Input, OptionList

from ..support.fake_session import FakeSession
from ..support.screens import (
    both_sizes,
    dialog_problem,
    inspector,
    keep_the_cursor_still,
    live,
    panel_text,
    ready,
    replay,
    screen_lines,
    until,
)
from ..support.traces import make_header

SIZE = (120, 40)

SAMPLED = Sampling(
    temperature=0.7, top_k=40, top_p=0.95, seed=7, max_new_tokens=100, ignore_eos=True
)
DECODING = Decoding("Why?", raw=False, sampling=SAMPLED)


async def open_editor(pilot: Pilot[None], app: InspectorApp) -> PromptEditor:
    await ready(pilot, app)
    await pilot.press("p")
    await until(pilot, lambda: isinstance(app.screen, PromptEditor))
    assert isinstance(app.screen, PromptEditor)
    return app.screen


def write(editor: PromptEditor, **values: str) -> None:
    for key, value in values.items():
        editor.query_one(f"#{key}", Input).value = value


async def test_what_is_edited_is_decoded() -> None:
    app = live(session := FakeSession())
    async with app.run_test(size=SIZE) as pilot:
        editor = await open_editor(pilot, app)
        before = make_header().sampling
        assert {n.key: editor.query_one(f"#{n.key}", Input).value for n in NUMBERS} == {
            "temperature": "0",
            "top_k": "0",
            "max_new_tokens": str(before.max_new_tokens),
            "seed": "0",
            "top_p": "1",
        }
        editor.query_one(TextBox).text = "Tell me."
        write(editor, temperature="0.7", top_k="40", top_p="0.95", seed="7", max_new_tokens="100")
        editor.query_one("#ignore_eos", Tick).focus()
        await pilot.press("space")
        await pilot.click("#template")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "0/100 steps" in panel_text(app, "#status"))
        assert "T 0.7" in panel_text(app, "#status")
    header = session.trace.header
    assert (header.prompt.text, header.prompt.chat_template) == ("Tell me.", False)
    assert header.sampling == SAMPLED


async def test_decoding_what_was_decoded_begins_no_other_trace() -> None:
    app = live(session := FakeSession())
    trace = session.trace
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot, app)
        await pilot.press("right")
        await until(pilot, lambda: "1/64 steps" in panel_text(app, "#status"))
        await open_editor(pilot, app)
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "0/64 steps" in panel_text(app, "#status"))
        assert session.trace is trace


@pytest.mark.parametrize("number", [0.1 + 0.2, 1e-5, 123456.789, 2.0])
async def test_a_number_stays_what_it_is_unless_it_is_edited(number: float) -> None:
    sampling = Sampling(
        temperature=number, top_k=0, top_p=1 / 3, seed=10**12, max_new_tokens=1, ignore_eos=False
    )
    decoding = Decoding("Why?", raw=True, sampling=sampling)
    results: list[Decoding | None] = []
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        await app.push_screen(PromptEditor(decoding), results.append)
        await pilot.press("ctrl+r")
        await until(pilot, lambda: results)
    assert results == [decoding]


class Extended(Sampling, frozen=True):
    """Sampling with a field that the editor has none for."""

    min_p: float = 0.0


async def test_what_the_editor_has_no_field_for_stays() -> None:
    sampling = Extended(**msgspec.structs.asdict(SAMPLED), min_p=0.25)
    results: list[Decoding | None] = []
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        editor = PromptEditor(replace(DECODING, sampling=sampling))
        await app.push_screen(editor, results.append)
        write(editor, seed="8")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: results)
    assert results[0] is not None
    assert results[0].sampling == msgspec.structs.replace(sampling, seed=8)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("N", "N"),
        (["right", "!"], "Why?!"),
        (["left", "!"], "!Why?"),
        (["end", "x", "ctrl+a", "N", "o"], "No"),
    ],
)
async def test_the_old_text_is_selected(keys: Sequence[str], text: str) -> None:
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        await app.push_screen(editor := PromptEditor(DECODING))
        await pilot.press(*keys)
        assert editor.query_one(TextBox).text == text


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        (
            "temperature",
            "-1",
            "temperature is '-1'; it must be 0 or from 1e-6 to 1e6.",
        ),
        (
            "temperature",
            "nan",
            "temperature is 'nan'; it must be 0 or from 1e-6 to 1e6.",
        ),
        (
            "temperature",
            "inf",
            "temperature is 'inf'; it must be 0 or from 1e-6 to 1e6.",
        ),
        (
            "temperature",
            "hot",
            "temperature is 'hot'; it must be 0 or from 1e-6 to 1e6.",
        ),
        (
            "temperature",
            "",
            "temperature is ''; it must be 0 or from 1e-6 to 1e6.",
        ),
        ("top_k", "1.5", "top-k is '1.5'; it must be a whole number, 0 or more."),
        ("top_k", "-1", "top-k is '-1'; it must be a whole number, 0 or more."),
        ("top_p", "0", "top-p is '0'; it must be a number above 0 and at most 1."),
        ("top_p", "1.01", "top-p is '1.01'; it must be a number above 0 and at most 1."),
        ("seed", "-3", "seed is '-3'; it must be a whole number, 0 or more."),
        ("max_new_tokens", "0", "new tokens is '0'; it must be a whole number, 1 or more."),
    ],
)
async def test_a_bad_number_gets_a_sentence(key: str, value: str, sentence: str) -> None:
    results: list[Decoding | None] = []
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        editor = PromptEditor(DECODING)
        await app.push_screen(editor, results.append)
        write(editor, **{key: value})
        await pilot.press("ctrl+r")
        assert dialog_problem(app) == sentence
        assert app.focused is editor.query_one(f"#{key}")
        write(editor, **{key: "1"})
        await pilot.press("enter")
        await until(pilot, lambda: results)
    assert getattr(results[0].sampling, key) == 1  # pyright: ignore[reportOptionalMemberAccess]


async def test_after_a_failure_to_open_the_editor_changes_the_options() -> None:
    opened: list[Options] = []
    session = FakeSession()

    def open_session(options: Options, _record_to: Path | None, _progress: object) -> FakeSession:
        opened.append(options)
        if len(opened) == 1:
            raise UserError("the prompt is too long")
        return session

    asked = Options(prompt="One", temperature=0.5, seed=3, raw=True)
    app = PrunetuiApp(asked, None, open_session=open_session)
    async with app.run_test(size=SIZE) as pilot:
        panel = inspector(app).query_one(LoadingPanel)
        await until(pilot, lambda: panel.problem)
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, PromptEditor))
        editor = app.screen
        assert isinstance(editor, PromptEditor)
        assert editor.query_one("#temperature", Input).value == "0.5"
        assert not editor.query_one("#template", Tick).value
        editor.query_one(TextBox).text = "Two"
        write(editor, seed="4")
        await pilot.press("ctrl+r")
        await ready(pilot, app)
    assert (opened[1].prompt, opened[1].seed, opened[1].temperature) == ("Two", 4, 0.5)
    assert opened[1].raw


# -- the library ----------------------------------------------------------------------------------


async def test_choosing_from_the_library_fills_the_text_and_can_be_undone() -> None:
    save_prompt("mine", "Line one\nline two")
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        editor = PromptEditor(DECODING)
        await app.push_screen(editor)
        names, box, template = (
            editor.query_one(OptionList),
            editor.query_one(TextBox),
            editor.query_one("#template", Tick),
        )
        assert [str(option.prompt) for option in names.options] == [
            "arithmetic",
            "multiple choice",
            "code",
            "fact",
            "mine",
        ]
        names.focus()
        await pilot.press("down")
        assert box.text == "Why?"
        await pilot.press("enter")
        assert (box.text, template.value) == (POSTER_QUESTION, True)
        await pilot.press("down", "enter")
        assert (box.text, template.value) == (BUILT_IN_PROMPTS[1].text, False)
        await pilot.press("up", "up", "enter")
        # What the person saved says nothing of the template.
        assert (box.text, template.value) == ("Line one\nline two", False)
        box.focus()
        await pilot.press("ctrl+z", "ctrl+z", "ctrl+z")
        assert box.text == "Why?"


async def test_a_click_chooses_a_prompt() -> None:
    app = replay()
    async with app.run_test(size=(80, 24)) as pilot:
        editor = PromptEditor(DECODING)
        await app.push_screen(editor)
        await pilot.click("#library", offset=(2, 2))
        assert editor.query_one(TextBox).text == BUILT_IN_PROMPTS[2].text


def test_the_multiple_choice_ends_where_the_letter_follows() -> None:
    choice = BUILT_IN_PROMPTS[1]
    assert choice.raw
    assert choice.text.endswith("Answer:")
    assert [line[:2] for line in choice.text.splitlines()[1:5]] == ["A.", "B.", "C.", "D."]


async def test_a_prompt_is_saved_under_a_name_and_never_over_another() -> None:
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        editor = PromptEditor(DECODING)
        await app.push_screen(editor)
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, AskDialog))
        await pilot.press(*"bees", "enter")
        await until(pilot, lambda: app.screen is editor)
        assert (prompts_directory() / "bees.txt").read_text("utf-8") == "Why?"
        assert [str(option.prompt) for option in editor.query_one(OptionList).options][4:] == [
            "bees"
        ]
        editor.query_one(TextBox).text = "Another"
        editor.query_one("#save", Button).press()
        await until(pilot, lambda: isinstance(app.screen, AskDialog))
        await pilot.press(*"bees", "enter")
        assert "exists already" in dialog_problem(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is editor)
        assert (prompts_directory() / "bees.txt").read_text("utf-8") == "Why?"
        editor.query_one(TextBox).text = " "
        await pilot.press("f2")
        assert dialog_problem(app).startswith("The prompt is empty")


@pytest.mark.parametrize("name", ["", "  ", ".hidden", "a/b", "..", "a\0b", "a\nb", "\x1b[2J"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="names no file"):
        save_prompt(name, "text")
    assert saved_prompt_names() == []


def test_saved_prompts_come_back_as_they_were() -> None:
    assert save_prompt(" Zoë's ", "é漢\n\ttext\n") == "Zoë's"
    save_prompt("a", "text")
    assert saved_prompt_names() == ["Zoë's", "a"]
    assert read_saved_prompt("Zoë's") == "é漢\n\ttext\n"


async def test_a_saved_prompt_that_cannot_be_read_gets_a_sentence() -> None:
    save_prompt("bad", "text")
    (prompts_directory() / "bad.txt").write_bytes(b"\xff\xfe")
    (prompts_directory() / "dir.txt").mkdir()
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        editor = PromptEditor(DECODING)
        await app.push_screen(editor)
        editor.query_one(OptionList).focus()
        await pilot.press("end", "enter")
        assert dialog_problem(app).endswith("dir.txt: Is a directory.")
        await pilot.press("up", "enter")
        assert dialog_problem(app).endswith("bad.txt is not UTF-8 (byte 0).")
        assert editor.query_one(TextBox).text == "Why?"
        await pilot.press("home", "enter")
        assert dialog_problem(app) == ""


# -- what is pasted -------------------------------------------------------------------------------


HOSTILE = "a\x1b]52;c;aGk=\x07b\u202ec\x9b2J\r\nd\te\rf"


async def test_what_is_pasted_is_text() -> None:
    results: list[Decoding | None] = []
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        editor = PromptEditor(DECODING)
        await app.push_screen(editor, results.append)
        box = editor.query_one(TextBox)
        box.select_all()
        app.post_message(events.Paste(HOSTILE))
        shown = "a␛]52;c;aGk=␇b<U+202E>c<U+009B>2J\nd\te\nf"
        await until(pilot, lambda: box.text == shown)
        seed = editor.query_one("#seed", TextField)
        seed.focus()
        seed.value = ""
        app.post_message(events.Paste("1\x1b[2J"))
        await until(pilot, lambda: seed.value == "1␛[2J")
        await pilot.press("ctrl+r")
        assert dialog_problem(app) == "seed is '1␛[2J'; it must be a whole number, 0 or more."
        text = "".join(screen_lines(editor))
        assert not {c for c in text if ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c == "\u202e"}
        seed.value = "1"
        await pilot.press("ctrl+r")
        await until(pilot, lambda: results)
    assert results[0] is not None
    # Marks of direction are a part of some languages, escape sequences of none.
    assert results[0].prompt == shown.replace("<U+202E>", "\u202e")


@pytest.mark.parametrize(
    ("edit", "after"),
    [
        ("", "👩\u200d👩 \x1b[1m <U+202E> \u202e می\u200cخواهم"),
        # A glyph that the prompt itself has can be meant as it stands.
        ("x", "x👩\u200d👩 \x1b[1m <U+202E> <U+202E> می\u200cخواهم"),
    ],
)
async def test_a_prompt_keeps_its_controls(edit: str, after: str) -> None:
    prompt = "👩\u200d👩 \x1b[1m <U+202E> \u202e می\u200cخواهم"
    results: list[Decoding | None] = []
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        editor = PromptEditor(replace(DECODING, prompt=prompt))
        await app.push_screen(editor, results.append)
        box = editor.query_one(TextBox)
        assert box.text == "👩<U+200D>👩 ␛[1m <U+202E> <U+202E> می<U+200C>خواهم"
        box.insert(edit, (0, 0))
        await pilot.press("ctrl+r")
        await until(pilot, lambda: results)
    assert results[0] is not None
    assert results[0].prompt == after


async def test_hostile_names_and_texts_of_files_are_made_visible() -> None:
    prompts_directory().mkdir(parents=True)
    (prompts_directory() / "x\x1b[2J[red].txt").write_bytes(b"a\x1b[31mb")
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        editor = PromptEditor(DECODING)
        await app.push_screen(editor)
        names = editor.query_one(OptionList)
        assert str(names.options[-1].prompt) == "x␛[2J[red]"
        names.focus()
        await pilot.press("end", "enter")
        assert editor.query_one(TextBox).text == "a␛[31mb"


# -- as drawn -------------------------------------------------------------------------------------


@both_sizes
def test_the_editor(snap_compare, size: tuple[int, int]) -> None:
    save_prompt("Lena's riddle", "What walks?")
    save_prompt("a name that is longer than the list is wide", "x")

    async def edit(pilot: Pilot[None]) -> None:
        await pilot.app.push_screen(
            PromptEditor(Decoding(BUILT_IN_PROMPTS[1].text, raw=True, sampling=SAMPLED))
        )
        await keep_the_cursor_still(pilot)

    assert snap_compare(replay(theme="dark"), terminal_size=size, run_before=edit)


def test_the_editor_refusing_on_the_smallest_screen(snap_compare) -> None:
    async def refuse(pilot: Pilot[None]) -> None:
        editor = PromptEditor(DECODING)
        await pilot.app.push_screen(editor)
        write(editor, top_p="2")
        await pilot.press("ctrl+r")
        await keep_the_cursor_still(pilot)

    assert snap_compare(replay(theme="dark"), terminal_size=(60, 16), run_before=refuse)
