"""The user's keys: `keys.toml` in the configuration directory, as binding id = key or keys.

Textual accepts any key map silently, so it is checked here.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import platformdirs
from textual.binding import Binding
from textual.keys import KEY_NAME_REPLACEMENTS, KEY_TO_UNICODE_NAME, Keys

from ...engine.errors import UserError, reason

MODIFIERS = {"ctrl", "shift", "alt", "super"}

RESERVED_KEYS = {"ctrl+q": "quit", "ctrl+p": "commands", "ctrl+c": "copy", "tab": "the next field"}
"""Keys that work everywhere, each with what it does."""


def keys_file() -> Path:
    return platformdirs.user_config_path("prunetui") / "keys.toml"


def load_keys(bindings: Sequence[Binding]) -> dict[str, str]:
    """Return keys by binding id, separated by commas as in Textual; empty without a file.

    Raises `UserError` if the file is wrong, names none of the bindings or no key, or leaves one key
    with two of them.
    """
    path = keys_file()
    try:
        content = msgspec.toml.decode(path.read_bytes(), type=dict[str, str | list[str]])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _keys_error(reason(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _keys_error(str(error)) from error
    known = {binding.id for binding in bindings}
    keys: dict[str, str] = {}
    for binding_id, names in content.items():
        if binding_id not in known:
            raise _keys_error(f"nothing is called {binding_id}")
        names = [names] if isinstance(names, str) else names
        if not names:
            raise _keys_error(f"{binding_id} has no key")
        keys[binding_id] = ",".join(_textual_key(name) for name in names)
    _check_clashes([rebind(binding, keys) for binding in bindings])
    return keys


def rebind(binding: Binding, keys: Mapping[str, str]) -> Binding:
    """Return a binding with the user's keys, unchanged if there are none for it."""
    key = keys.get(binding.id or "")
    return binding.with_key(key, key_display=None) if key else binding


def with_first_key(binding: Binding) -> Binding:
    """Return a binding with only the first of its keys, for display."""
    return binding.with_key(binding.key.split(",")[0], key_display=binding.key_display)


def _textual_key(name: str) -> str:
    """Textual's name of a key: `question_mark` for `?`."""
    *modifiers, last = [name] if len(name) == 1 else name.split("+")
    if len(last) == 1 and last.isprintable() and not last.isspace():
        if not last.isalnum():
            last = _character_key(last)
    elif last not in {key.value for key in Keys} and last not in KEY_TO_UNICODE_NAME:
        try:
            unicodedata.lookup(last.replace("_", " "))
        except KeyError:
            raise _keys_error(f"there is no key {name!r}") from None
    if not MODIFIERS.issuperset(modifiers):
        raise _keys_error(f"there is no key {name!r}")
    return "+".join([*modifiers, last])


def _character_key(character: str) -> str:
    try:
        name = unicodedata.name(character).lower().replace("-", "_").replace(" ", "_")
    except ValueError:
        raise _keys_error(f"there is no key {character!r}") from None
    return KEY_NAME_REPLACEMENTS.get(name, name)


def _check_clashes(bindings: Iterable[Binding]) -> None:
    used = dict(RESERVED_KEYS)
    for binding in bindings:
        for key in binding.key.split(","):
            if key in used:
                raise _keys_error(f"{key} is both {used[key]} and {binding.id}")
            used[key] = binding.id or binding.description


def _keys_error(problem: str) -> UserError:
    return UserError(f"the keys of {keys_file()} are not used: {problem}")
