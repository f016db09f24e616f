"""Paths in the text of a recipe: how they are quoted, and which texts name one."""

import json
import re
from collections.abc import Iterator

from ..files import exists, expanded
from ..trace.printable import visible

NAME = re.compile(r"[A-Za-z0-9][\w.-]*=")
"""Name of a variant before its recipe."""

QUOTATION = r"'[^']+'|\"([^\"\\]|\\.)+\""
"""A path as it is in '…', or as a JSON string in "…"."""

_SPECIAL = re.compile(r"^[\s'\"]|\+|\s$")


def quoted(path: str) -> str:
    if "'" not in path and visible(path) == path:
        return f"'{path}'"
    # Characters that a screen shows as something else are escaped.
    characters = (json.dumps(c, ensure_ascii=visible(c) != c)[1:-1] for c in path)
    return f'"{"".join(characters)}"'


def unquoted(quotation: str) -> str:
    """Path of a quotation. Raises `ValueError` for one that is no JSON string."""
    return quotation[1:-1] if quotation.startswith("'") else json.loads(quotation)


def is_plain(path: str) -> bool:
    """Whether a recipe can have a path as it is: no +, and no quotes or spaces around it."""
    return _SPECIAL.search(path) is None and visible(path) == path


def names_a_checkpoint(text: str) -> bool:
    """Whether a text is a path or `owner/name`; a bare word only if it exists on the disk."""
    named = "/" in text or text.startswith("~") or exists(expanded(text))
    return ":" not in text and bool(text) and named


def existing_paths(text: str) -> Iterator[tuple[int, int]]:
    """Spans of a recipe's text that are existing paths."""
    name = NAME.match(text)
    for start in {0, name.end() if name else 0}:
        for end in [*(plus.start() for plus in re.finditer(r"\+", text)), len(text)]:
            if start < end and exists(expanded(text[start:end])):
                yield start, end
