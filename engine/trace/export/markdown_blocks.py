"""Blocks of Markdown, and text in them that stays text."""

import re

from ..printable import visible


def table(head: list[str], rows: list[list[str]], alignment: str = "---") -> str:
    """Table of cells that are Markdown; `alignment` is of all columns but the first."""
    lines = [head, ["---", *[alignment] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def code_or_dash(text: str) -> str:
    """Text as code, but for a dash."""
    return text if text == "–" else code(text)


def code(text: str) -> str:
    """Text as inline code, with a fence longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{visible(text).replace('|', '¦')}{pad}{fence}"


def fenced(text: str) -> str:
    """Block of text as it is, with a fence longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{visible(text, keep=chr(10))}\n{fence}"
