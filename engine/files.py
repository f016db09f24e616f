"""Paths and text files as a user names them, and new files that hold what is private."""

import codecs
import io
import os
import stat
from pathlib import Path
from typing import BinaryIO

from .errors import UserError, reason

OWN_STREAMS = {"/dev/stdout": 1, "/dev/fd/1": 1, "/dev/stderr": 2, "/dev/fd/2": 2}
"""What a shell's redirections are called; a file that one leads to is the shell's, and is there."""

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def expanded(text: str) -> Path:
    """With `~` for the home directory; that of a user who is not there stays as it is."""
    return Path(os.path.expanduser(text))


def exists(path: Path) -> bool:
    """False also for what cannot be asked for: no right to look, or a name that is too long."""
    return os.path.exists(path)


def is_stream(path: Path) -> bool:
    """Whether it is there to be written to and nothing of it could be overwritten: a character
    device, a pipe, or where this process's output goes."""
    if str(path) in OWN_STREAMS:
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def open_stream(path: Path) -> BinaryIO:
    """To write to, unbuffered. Raises `OSError`."""
    if str(path) in OWN_STREAMS:
        # Opened anew, a file would be written from its start, and a socket could not be.
        return os.fdopen(os.dup(OWN_STREAMS[str(path)]), "wb", buffering=0)
    return path.open("wb", buffering=0)


def open_new(path: Path, mode: int) -> BinaryIO:
    """A new file with these permissions, less the umask's; unbuffered. Raises `OSError`."""
    return open(path, "xb", buffering=0, opener=lambda name, flags: os.open(name, flags, mode))


PRIVATE = 0o600
"""Permissions of files that hold prompts and what models wrote."""


def make_private_directory(path: Path) -> None:
    """With those above it that are missing, for nobody else to look into; one that is there stays
    as it is. Raises `OSError`."""
    if not path.parent.exists():
        make_private_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


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
