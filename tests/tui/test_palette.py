"""Command palette: what is typed finds its command first."""

from prunetui.tui.screens.keys import KEYS
from prunetui.tui.screens.palette import NONE_FOUND, THEME, Palette, score_of, words_of
from prunetui.tui.views.catalog import VIEWS
from prunetui.tui.widgets.key_line import Key
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input, OptionList

from ..support.fake_session import FakeSession
from ..support.screens import SIZE, inspector, live, ready, replay, screen_lines, send, until

TYPED = {
    "export": "Export",
    "screenshot": "Export",
    "svg": "Export",
    "html": "Export",
    "csv": "Export",
    "breakpoint": "Breakpoint",
    "temperature": "Prompt",
    "seed": "Prompt",
    "prompt": "Prompt",
    "theme": "Theme",
    "help": "Help",
    "restart": "Restart",
    "quit": "Quit",
    "branch": "Branches",
    "lens": "Logit lens",
    "context": "Context",
    "variants": "Variants",
    "prune": "Variants",
    "edit prompt": "Prompt",
    "expo": "Export",
    "points": "",
    "eakpoi": "Breakpoint",
    **{view.NOUN.split()[0].lower(): view.NOUN for _, view, _ in VIEWS},
}
"""What a user types, and the command that is meant."""

MEANT = {
    "Export": "parquet json markdown report picture image save write file",
    "Breakpoint": "break condition stop",
    "Prompt": "sampling greedy top-p top-k template question",
    "Variants": "variant lanes recipe drop wanda sparsity gate",
    "Help": "keys marks measures glossary manual",
    "Restart": "again",
    "Quit": "exit close",
    "Sessions": "open load recorded browse list",
    "Branches": "branches tree",
    "Logit lens": "norm",
    "Context": "forced both free",
    "Token to force": "force what-if candidate",
    "Answers": "answers options",
    "Copy": "copy clipboard",
    "Playback": "play pause decode",
    "Shell": "suspend shell",
    "Step number": "go goto jump",
    "Drift view": "chart cosine kl",
    "Layers view": "heat map residual",
    "Theory view": "theorem estimate",
    "Alignment view": "diff compare",
    "Statistics view": "perplexity kld llama.cpp",
    "Overview": "overview main",
    "Theme": "colours dark light",
    "Drawing mode": "mode drawing",
}
"""Other words for a command."""

FILLERS = {"a", "and", "another", "as", "at", "each", "in", "of", "on", "one", "or", "other", "the"}
FILLERS |= {
    "to",
    "what",
    "when",
    "which",
    "few",
    "from",
    "here",
    "it",
    "its",
    "up",
    "whose",
    "such",
}


async def first_typed(pilot: Pilot[None], query: str) -> str:
    """First command of the palette after `query` was typed, empty if there is none."""
    palette = pilot.app.screen
    palette.query_one(Input).value = query
    await pilot.pause()
    return next(iter(nouns(palette)), "")


def nouns(palette: Screen[object]) -> list[str]:
    """Nouns of the commands that the palette shows."""
    return [str(option.prompt).split("  ")[0] for option in palette.query_one(OptionList).options]


async def test_what_is_typed_finds_its_command_first() -> None:
    app = live(FakeSession(5))
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, app)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, Palette))
        assert {query: await first_typed(pilot, query) for query in TYPED} == TYPED


def first(query: str) -> Key:
    return max((*KEYS, THEME), key=lambda key: score_of(key, query))


def test_other_words_for_a_command_find_it_first() -> None:
    words = {word: noun for noun, words in MEANT.items() for word in words.split()}
    assert {word: first(word).noun for word in words} == words


def test_every_word_of_the_help_finds_a_command_that_it_is_a_word_of_first() -> None:
    for key in KEYS:
        assert first(key.noun) == key
        for word in {*words_of(key.tooltip)} - FILLERS:
            command = first(word)
            assert word in words_of(f"{command.noun} {command.keywords} {command.tooltip}"), word


async def test_a_command_typed_in_one_burst_runs() -> None:
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        send(app, "ctrl+p", *"first step", "enter")
        await until(pilot, lambda: inspector(app).cursor == 0)
        assert app.screen_stack == [inspector(app)]


async def test_the_arrows_choose_and_a_click_does() -> None:
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("ctrl+p", *"overview", "down", "up", "enter")
        assert app.screen_stack == [inspector(app)]
        await pilot.press("ctrl+p", *"drift view")
        await pilot.click(OptionList, offset=(4, 0))
        await until(pilot, lambda: inspector(app).chosen_view == "drift-view")


async def test_words_that_no_command_has_are_answered_and_run_nothing() -> None:
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("ctrl+p", *"xyzzy", "enter")
        assert isinstance(app.screen, Palette)
        assert NONE_FOUND in "\n".join(screen_lines(app.screen))
        await pilot.press("escape")
        assert app.screen_stack == [inspector(app)]


async def test_a_theme_is_chosen_from_the_palette() -> None:
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        send(app, "ctrl+p", *"theme", "enter", *"light", "enter")
        await until(pilot, lambda: app.theme == "light")
        assert app.screen_stack == [inspector(app)]


async def test_a_replay_offers_no_command_that_needs_a_model() -> None:
    app = replay()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("ctrl+p")
        hidden = inspector(app).hidden_keys
        assert nouns(app.screen) == [key.noun for key in (*KEYS, THEME) if key.id not in hidden]
