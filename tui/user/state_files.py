"""Files of the state directory: settings, cursors of replays, and the text copied last.

Each file is replaced whole, so that a run that is killed leaves the old one.
"""

import contextlib
import os
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import platformdirs

from ...engine.errors import UserError, reason
from ...engine.files import PRIVATE, make_private_directory, open_new
from ...engine.output_files import write_all

MAX_POSITIONS = 200

T = TypeVar("T")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Choices made on the screen; an option of the command line overrides them."""

    theme: str | None = None
    export_format: str | None = None
    """Suffix of the file that was exported last."""
    told_of_ssh: bool = False
    """Whether the user was told that a session ends with the connection."""


class ReplayPosition(msgspec.Struct, frozen=True, kw_only=True):
    """Cursor, lane and view of a replay when it was closed."""

    trace: str
    """Resolved path of the trace."""
    cursor: int | None
    """Step under the cursor; None follows the end."""
    lane: int
    view: str


def read_settings() -> Settings:
    """Return the settings, the built-in ones without a file.

    Raises `UserError` if they cannot be read.
    """
    return read_json(_path("settings.json"), Settings, Settings())


def change_settings(**changes: Any) -> None:
    """Replace some fields of the settings. Raises `UserError` if they cannot be written."""
    settings = Settings()
    # The user was told of a damaged file when it was read; it is replaced.
    with contextlib.suppress(UserError):
        settings = read_settings()
    write_json(_path("settings.json"), msgspec.structs.replace(settings, **changes))


def read_position(trace: Path) -> ReplayPosition | None:
    """Return the position of the last replay of a trace file, None if there is none.

    Raises `UserError` if the positions cannot be read.
    """
    path = str(trace.resolve())
    return next((position for position in _read_positions() if position.trace == path), None)


def write_position(trace: Path, cursor: int | None, lane: int, view: str) -> None:
    """Replace the position of a trace file; the oldest of more than `MAX_POSITIONS` is dropped.

    Raises `UserError` if it cannot be written.
    """
    position = ReplayPosition(trace=str(trace.resolve()), cursor=cursor, lane=lane, view=view)
    others: list[ReplayPosition] = []
    # The user was told of a damaged file when it was read; it is replaced.
    with contextlib.suppress(UserError):
        others = [other for other in _read_positions() if other.trace != position.trace]
    write_json(_path("places.json"), [*others, position][-MAX_POSITIONS:])


def write_copied_text(text: str) -> Path:
    """Replace the file of the text copied last, and return its path.

    A terminal or multiplexer may drop a copy silently (tmux does, by default). Raises `UserError`
    if the file cannot be written.
    """
    path = _path("copied.txt")
    _replace(path, text.encode())
    return path


def _read_positions() -> list[ReplayPosition]:
    return read_json(_path("places.json"), list[ReplayPosition], [])


def _path(name: str) -> Path:
    return platformdirs.user_state_path("prunetui") / name


def read_json(path: Path, content_type: type[T], default: T) -> T:
    """Return a file's content, the default without a file.

    Raises `UserError` if it cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=content_type)
    except FileNotFoundError:
        return default
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged and not used: {error}") from error


def write_json(path: Path, content: object) -> None:
    """Replace a file of the user's own. Raises `UserError` if it cannot be written."""
    _replace(path, msgspec.json.encode(content))


def _replace(path: Path, content: bytes) -> None:
    new = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        make_private_directory(path.parent)
        new.unlink(missing_ok=True)
        with open_new(new, PRIVATE) as file:
            write_all(file, content)
        new.replace(path)
    except OSError as error:
        raise UserError(f"cannot keep {path}: {reason(error)}") from error
