"""Colour themes as data files: the built-in ones, and the user's own."""

from pathlib import Path

import msgspec
import platformdirs
from textual.color import Color, ColorParseError
from textual.css.constants import VALID_STYLE_FLAGS
from textual.theme import Theme

from ..engine.errors import UserError, reason

DARK = "dark"
LIGHT = "light"
ANSI = "ansi"
BUILT_IN = (DARK, LIGHT, "high-contrast", "okabe-ito", ANSI, "mono")

STYLES = ("quiet", "rule", "later", "later-diverged", "diverged", "cursor")
"""Parts of the screen that a theme may give a text style, such as bold: `cursor-style` …"""


class ThemeFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Theme file: Textual's colours, and `variables`, the inspector's own.

    A variable that is left out is that of the built-in dark, light or ansi theme; a style is none.
    With `ansi`, colours named ansi_… are left to the terminal's palette.
    """

    dark: bool
    ansi: bool = False
    primary: str
    secondary: str
    accent: str
    foreground: str
    background: str
    surface: str
    panel: str
    success: str
    warning: str
    error: str
    variables: dict[str, str] = {}
    styles: dict[str, str] = {}


def load_themes() -> tuple[list[Theme], list[UserError]]:
    """Return every valid theme, and an error for each of the user's that is not."""
    built_in = {
        name: _parse(f"{name}.toml", Path(__file__).with_name(f"{name}.toml").read_bytes())
        for name in BUILT_IN
    }
    all_variables = built_in[DARK].variables
    themes = [_textual_theme(name, file, all_variables) for name, file in built_in.items()]
    problems: list[UserError] = []
    folder = platformdirs.user_config_path("prunetui") / "themes"
    for path in sorted(folder.glob("*.toml")):
        try:
            file = _read(path, all_variables)
        except UserError as problem:
            problems.append(problem)
        else:
            base = ANSI if file.ansi else DARK if file.dark else LIGHT
            themes.append(_textual_theme(path.stem, file, built_in[base].variables))
    return themes, problems


def _read(path: Path, all_variables: dict[str, str]) -> ThemeFile:
    try:
        file = _parse(str(path), path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read the theme {path}: {reason(error)}") from error
    for name in file.variables:
        if name not in all_variables:
            raise UserError(f"the theme {path} is not used: there is no variable {name}")
    for name, style in file.styles.items():
        if name not in STYLES:
            raise UserError(f"the theme {path} is not used: {name} takes no style")
        if not VALID_STYLE_FLAGS.issuperset(style.split()):
            raise UserError(f"the theme {path} is not used: {style!r} is no style")
    return file


def _parse(name: str, content: bytes) -> ThemeFile:
    try:
        file = msgspec.toml.decode(content, type=ThemeFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"the theme {name} is not used: {error}") from error
    for key, value in {**msgspec.structs.asdict(file), **file.variables}.items():
        if isinstance(value, str):
            try:
                Color.parse(value)
            except ColorParseError as error:
                raise UserError(
                    f"the theme {name} is not used: {key} is {value!r}, which is no colour"
                ) from error
    return file


def _textual_theme(name: str, file: ThemeFile, defaults: dict[str, str]) -> Theme:
    fields = msgspec.structs.asdict(file)
    styles = {f"{part}-style": fields["styles"].get(part, "none") for part in STYLES}
    del fields["styles"]
    return Theme(name=name, **{**fields, "variables": {**defaults, **file.variables, **styles}})
