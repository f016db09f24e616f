"""The person's own keys: `keys.toml` in the configuration directory, as binding id = key or keys.

Textual takes a key map silently whatever is in it, so it is checked here.
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

TAKEN = {"ctrl+q": "quit", "ctrl+p": "commands", "ctrl+c": "copy", "tab": "the next field"}
"""Keys that work everywhere, and what for."""


def keys_file() -> Path:
    return platformdirs.user_config_path("prunetui") / "keys.toml"


def load_keys(scopes: Iterable[Sequence[Binding]]) -> dict[str, str]:
    """The keys of bindings by id, separated by commas as in Textual; none without a file.

    `scopes` are bindings that work at the same time. Raises `UserError` if the file is wrong,
    names no binding or no key, or leaves one key with two bindings.
    """
    path = keys_file()
    try:
        content = msgspec.toml.decode(path.read_bytes(), type=dict[str, str | list[str]])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _wrong(reason(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _wrong(str(error)) from error
    scopes = list(scopes)
    known = {binding.id for bindings in scopes for binding in bindings}
    keys: dict[str, str] = {}
    for binding_id, given in content.items():
        if binding_id not in known:
            raise _wrong(f"nothing is called {binding_id}")
        names = [given] if isinstance(given, str) else given
        if not names:
            raise _wrong(f"{binding_id} has no key")
        keys[binding_id] = ",".join(_key(name) for name in names)
    for bindings in scopes:
        _check_clashes([mapped(binding, keys) for binding in bindings])
    return keys


def mapped(binding: Binding, keys: Mapping[str, str]) -> Binding:
    """The binding with the person's keys, if there are any for it."""
    mine = keys.get(binding.id or "")
    return binding.with_key(mine, key_display=None) if mine else binding


def first_key(binding: Binding) -> Binding:
    """As it is shown: the first of its keys."""
    return binding.with_key(binding.key.split(",")[0], key_display=binding.key_display)


def _key(name: str) -> str:
    """As Textual calls it: `question_mark` for `?`."""
    *modifiers, last = [name] if len(name) == 1 else name.split("+")
    if len(last) == 1 and last.isprintable() and not last.isspace():
        if not last.isalnum():
            last = _name_of(last)
    elif last not in {key.value for key in Keys} and last not in KEY_TO_UNICODE_NAME:
        try:
            unicodedata.lookup(last.replace("_", " "))
        except KeyError:
            raise _wrong(f"there is no key {name!r}") from None
    if not MODIFIERS.issuperset(modifiers):
        raise _wrong(f"there is no key {name!r}")
    return "+".join([*modifiers, last])


def _name_of(character: str) -> str:
    try:
        name = unicodedata.name(character).lower().replace("-", "_").replace(" ", "_")
    except ValueError:
        raise _wrong(f"there is no key {character!r}") from None
    return KEY_NAME_REPLACEMENTS.get(name, name)


def _check_clashes(bindings: Iterable[Binding]) -> None:
    used = dict(TAKEN)
    for binding in bindings:
        for key in binding.key.split(","):
            if key in used:
                raise _wrong(f"{key} is both {used[key]} and {binding.id}")
            used[key] = binding.id or binding.description


def _wrong(what: str) -> UserError:
    return UserError(f"the keys of {keys_file()} are not used: {what}")
