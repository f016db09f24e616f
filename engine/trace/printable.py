"""Text of a model, prompt, file or exception, made safe to show on a terminal."""

import unicodedata

# Cc: C0, DEL, C1. Cf: bidirectional and other invisible controls. Zl, Zp: separators that break
# a line. Cs, Cn: lone surrogates and unassigned code points, which terminals disagree on.
_HIDDEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs", "Cn"})


def visible(text: str, keep: str = "") -> str:
    """Replace each control character, except those in `keep`, by a glyph that shows it.

    C0 and DEL become their control pictures (␀ … ␟, ␡, and ⏎ for a newline), the rest `<U+202E>`.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep else _visible_character(c) for c in text)


def _visible_character(character: str) -> str:
    code = ord(character)
    if character == "\n":
        return "⏎"
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if unicodedata.category(character) in _HIDDEN:
        return f"<U+{code:04X}>"
    return character
