"""Text files that a person names."""

from pathlib import Path

from .errors import UserError, reason


def read_text(file: Path, what: str) -> str:
    """All of a UTF-8 file. Raises `UserError`, which calls it `what`, if that cannot be read."""
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise UserError(f"cannot read the {what} {file}: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the {what} {file} is not UTF-8 (byte {error.start})") from error
