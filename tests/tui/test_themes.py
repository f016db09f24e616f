"""Colour themes: the built-in ones are readable, and a user's is checked."""

from pathlib import Path

import prunetui.themes
import pytest
from prunetui.themes import BUILT_IN, DARK, LIGHT, load_themes
from prunetui.tui.screens.inspector import OVERVIEW
from prunetui.tui.views.catalog import VIEWS
from prunetui.tui.widgets.chart import Chart, ChartLine, Picture
from rich._palettes import EIGHT_BIT_PALETTE, STANDARD_PALETTE
from rich.color import Color as Colour
from rich.color import ColorSystem
from rich.color_triplet import ColorTriplet
from rich.style import Style
from textual.app import App
from textual.color import Color
from textual.pilot import Pilot
from textual.strip import Strip
from textual.theme import Theme
from textual.widget import Widget
from textual.widgets import ContentSwitcher

from ..support.screens import inspector, notices, replay, settle, until


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directory of the user's themes."""
    monkeypatch.setattr("platformdirs.user_config_path", lambda name: tmp_path / name)
    folder = tmp_path / "prunetui" / "themes"
    folder.mkdir(parents=True)
    return folder


def ours(name: str) -> Theme:
    return next(theme for theme in load_themes()[0] if theme.name == name)


def source(name: str) -> str:
    return Path(prunetui.themes.__file__).with_name(f"{name}.toml").read_text("utf-8")


def rounded(colour: str, system: ColorSystem) -> ColorTriplet:
    """Colour as a terminal of that many colours draws it; its 16 are those of most palettes."""
    nearest = Colour.parse(Color.parse(colour).hex6).downgrade(system)
    if nearest.number is None:
        return nearest.get_truecolor()
    palette = STANDARD_PALETTE if system is ColorSystem.STANDARD else EIGHT_BIT_PALETTE
    return ColorTriplet(*palette[nearest.number])


def contrast(a: str, b: str, system: ColorSystem) -> float:
    """WCAG 2: (L1 + 0.05) / (L2 + 0.05), L relative luminance."""

    def luminance(colour: str) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in rounded(colour, system).normalized
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


LEAST_CONTRAST = {ColorSystem.TRUECOLOR: 4.5, ColorSystem.EIGHT_BIT: 4.5, ColorSystem.STANDARD: 4.0}
COLOURED = (DARK, LIGHT, "high-contrast", "okabe-ito")


@pytest.mark.parametrize("system", LEAST_CONTRAST)
@pytest.mark.parametrize("name", COLOURED)
def test_every_text_and_bar_can_be_read_where_it_stands(name: str, system: ColorSystem) -> None:
    theme = ours(name)
    least = LEAST_CONTRAST[system]
    if name == "high-contrast" and system is not ColorSystem.STANDARD:
        least = 7.0
    variables = {k: v for k, v in theme.variables.items() if not k.endswith("-style")}
    del variables["rule"]
    cursor, cursor_text = variables.pop("cursor"), variables.pop("cursor-text")
    texts = [*variables.values(), theme.foreground, theme.accent, theme.error]
    pairs = [(text, ground) for text in texts for ground in (theme.background, theme.surface)]
    # The dialogs and the messages.
    on_panels = (theme.foreground, theme.accent, theme.error, variables["quiet"])
    pairs += [(text, theme.panel) for text in on_panels]
    for text, ground in [*pairs, (cursor_text, cursor)]:
        assert text
        assert ground
        assert contrast(text, ground, system) >= least, (text, ground)


async def test_what_is_drawn_of_the_views_can_be_read_in_any_number_of_colours() -> None:
    app = replay()
    unreadable = set()
    async with app.run_test(size=(120, 40)) as pilot:
        for name in COLOURED:
            app.theme = name
            for view in (OVERVIEW, *(view for view, _, _ in VIEWS)):
                inspector(app).query_one("#views", ContentSwitcher).current = view
                inspector(app).draw(by_key=True)
                await settle(pilot)
                unreadable |= {(name, view, *seen) for seen in hard_to_read(app)}
    assert unreadable == set()


def hard_to_read(app: App[None]) -> set[tuple[str, str, str]]:
    """Texts and bars on the screen that lack contrast, with their two colours; rules may."""
    segments = [segment for strip in app.screen._compositor.render_strips() for segment in strip]
    return {
        (segment.text.strip(), *colours)
        for segment in segments
        if segment.text.strip(" ─") and segment.style
        for colours in [colours_of(segment.style)]
        if any(contrast(*colours, system) < least for system, least in LEAST_CONTRAST.items())
    }


def colours_of(style: Style) -> tuple[str, str]:
    assert style.color
    assert style.bgcolor
    return style.color.get_truecolor().hex, style.bgcolor.get_truecolor().hex


@pytest.mark.parametrize("name", BUILT_IN)
async def test_ours_are_drawn(name: str) -> None:
    app = replay()
    async with app.run_test() as pilot:
        app.theme = name
        await pilot.pause()
        background = ours(name).background
        assert background
        assert app.screen.styles.background == Color.parse(background)


def test_a_users_theme_takes_what_it_leaves_out_from_ours(folder: Path) -> None:
    text = source(LIGHT).partition("[variables]")[0]
    (folder / "mine.toml").write_text(f'{text}[variables]\nspace-h = "red"\n')
    themes, problems = load_themes()
    assert problems == []
    assert [theme.name for theme in themes] == [*BUILT_IN, "mine"]
    assert themes[-1].variables == {**ours(LIGHT).variables, "space-h": "red"}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("dark = ", "Invalid value"),
        (source(DARK).replace("primary", "primery"), "unknown field `primery`"),
        (source(DARK).replace('"#82aaff"', "3"), "Expected `str`, got `int` - at `$.primary`"),
        (source(DARK).replace("#82aaff", "bluish"), "primary is 'bluish', which is no colour"),
        (source(DARK).replace("space-h", "space-x"), "there is no variable space-x"),
        (source(DARK).replace("#6fbfb0", "#zzz"), "space-h is '#zzz', which is no colour"),
        (source(DARK) + '[styles]\nmark = "bold"', "mark takes no style"),
        (source(DARK) + '[styles]\ncursor = "bright"', "'bright' is no style"),
        ("\udcff", "utf-8"),
    ],
)
def test_a_theme_that_is_wrong_is_named(folder: Path, text: str, wrong: str) -> None:
    (folder / "mine.toml").write_text(text, "utf-8", "surrogateescape")
    themes, problems = load_themes()
    assert [theme.name for theme in themes] == [*BUILT_IN]
    (problem,) = problems
    assert str(problem).startswith(f"the theme {folder / 'mine.toml'} is not used: ")
    assert wrong in str(problem)


async def test_the_screen_says_what_is_wrong_and_goes_on(folder: Path) -> None:
    (folder / "mine.toml").write_text("dark = 3")
    app = replay()
    async with app.run_test(notifications=True) as pilot:
        await until(pilot, lambda: notices(app))
        assert "mine.toml is not used: Expected `bool`, got `int`" in notices(app)[0]
        assert app.theme == DARK


OKABE_ITO = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"]


def test_okabe_and_itos_colours_are_theirs_and_spaces_differ() -> None:
    variables = ours("okabe-ito").variables
    spaces = [variables[name] for name in ("space-h", "space-z", "space-p", "space-kl")]
    assert len(set(spaces)) == 4
    assert {*spaces, variables["baseline"], variables["diverged"], variables["mark"]} <= {
        *OKABE_ITO
    }


def colours_on(app: App[None]) -> set[str]:
    """Colours of text and ground in escape codes; none where the terminal's defaults stand."""
    strips = [strip for widget in app.screen.walk_children(Widget) for strip in drawn(widget)]
    styles = [segment.style for strip in strips for segment in strip if segment.style]
    colours = [colour for style in styles for colour in (style.color, style.bgcolor) if colour]
    return {colour.name for colour in colours if not colour.is_default}


def drawn(widget: Widget) -> list[Strip]:
    return [widget.render_line(y) for y in range(widget.size.height)]


async def draw_a_chart(app: App[None], pilot: Pilot[None]) -> None:
    chart = Chart()
    await app.screen.query_one("#overview").mount(chart)
    await pilot.pause()
    line = ChartLine([0, 1, 2], [0.1, 0.5, 0.2], "space-h")
    chart.show(Picture([line], "1−cos h", steps=3, marks={"◆": [1]}), cursor=2)
    await pilot.pause()


async def test_ansi_leaves_every_colour_to_the_terminal() -> None:
    app = replay(theme="ansi")
    async with app.run_test() as pilot:
        await draw_a_chart(app, pilot)
        colours = colours_on(app)
        assert {"color(5)", "color(6)"} <= colours
        assert all(Colour.parse(name).number in range(16) for name in colours)


async def test_mono_has_no_colour_and_the_cursor_is_reversed() -> None:
    app = replay(theme="mono")
    async with app.run_test() as pilot:
        await draw_a_chart(app, pilot)
        assert colours_on(app) == set()
        reversed_text = [
            segment.text
            for strip in drawn(app.screen.query_one("#text"))
            for segment in strip
            if segment.style and segment.style.reverse
        ]
        assert len(reversed_text) == 3
