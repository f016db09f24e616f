"""What is kept from one run to the next, in the state directory: settings, where traces were
left, and what was copied last.

Each is one file that is replaced whole, so that a run that is killed leaves the old one.
"""

import contextlib
import os
from pathlib import Path
from typing import TypeVar

import msgspec
import platformdirs

from ...engine.errors import UserError, reason
from ...engine.files import PRIVATE, make_private_directory, open_new
from ...engine.trace.file import write_all

MOST_PLACES = 200


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a person chose on the screen; an option of the command line goes before it."""

    theme: str | None = None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a replay was left."""

    trace: str
    """The trace's resolved path."""
    cursor: int | None
    """None follows the end."""
    lane: int
    view: str


Kept = TypeVar("Kept")


def read_settings() -> Settings:
    """Raises `UserError` if they cannot be read; they are then the built-in ones."""
    return _read(_file("settings.json"), Settings, Settings())


def write_settings(settings: Settings) -> None:
    """Raises `UserError` if they cannot be kept."""
    _write(_file("settings.json"), settings)


def place_of(trace: Path) -> Place | None:
    """Where `trace` was left, if it is known. Raises `UserError` if that cannot be read."""
    path = str(trace.resolve())
    return next((place for place in _places() if place.trace == path), None)


def keep_place(trace: Path, cursor: int | None, lane: int, view: str) -> None:
    """The places left longest ago make room. Raises `UserError` if it cannot be kept."""
    place = Place(trace=str(trace.resolve()), cursor=cursor, lane=lane, view=view)
    others: list[Place] = []
    # A damaged file was spoken of when it was read; it is replaced.
    with contextlib.suppress(UserError):
        others = [other for other in _places() if other.trace != place.trace]
    _write(_file("places.json"), [*others, place][-MOST_PLACES:])


def keep_copy(text: str) -> Path:
    """Write what was copied to a file, the last copy only; its name.

    A terminal or multiplexer may drop a copy without a word (tmux does, by default). Raises
    `UserError` if it cannot be written.
    """
    path = _file("copied.txt")
    _replace(path, text.encode())
    return path


def _places() -> list[Place]:
    return _read(_file("places.json"), list[Place], [])


def _file(name: str) -> Path:
    return platformdirs.user_state_path("prunetui") / name


def _read(path: Path, kind: type[Kept], default: Kept) -> Kept:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return default
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged and not used: {error}") from error


def _write(path: Path, content: object) -> None:
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
