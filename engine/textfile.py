"""Text files that a person names."""

import codecs
import io
from pathlib import Path

from .errors import UserError, reason

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(file: Path, what: str) -> str:
    """All of a UTF-8 file, without a byte order mark. Raises `UserError`, which calls it `what`, if
    that cannot be read."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the {what} {file}: {reason(error)}") from error
    # Without a mark, UTF-16 of Latin letters is UTF-8 too, with a NUL for each of them.
    if content.startswith(_UTF_16) or content.count(0) > len(content) // 3:
        place = 0 if content.startswith(_UTF_16) else content.index(0)
        raise UserError(
            f"the {what} {file} looks like UTF-16, which is not read; save it as UTF-8: "
            f"{file.name} is not UTF-8 (byte {place})"
        )
    try:
        return io.TextIOWrapper(io.BytesIO(content), "utf-8-sig").read()
    except UnicodeDecodeError as error:
        raise UserError(f"the {what} {file} is not UTF-8 (byte {error.start})") from error
