"""Paths and text files that a user names, and new files with private contents."""

import codecs
import io
import os
import stat
from pathlib import Path
from typing import BinaryIO

from .errors import OptionError, UserError, reason

OWN_STREAMS = {"/dev/stdout": 1, "/dev/fd/1": 1, "/dev/stderr": 2, "/dev/fd/2": 2}
"""File descriptors by the paths of a shell's redirections, whose files the shell has opened."""

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def expanded(text: str) -> Path:
    """The path with `~` expanded; the `~name` of an unknown user stays as it is."""
    return Path(os.path.expanduser(text))


def exists(path: Path) -> bool:
    """Whether a path exists; false where that cannot be asked (no permission, name too long)."""
    return os.path.exists(path)


def is_stream(path: Path) -> bool:
    """Whether a path can be written without overwriting anything: a character device, a pipe, or
    this process's own output."""
    if str(path) in OWN_STREAMS:
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def open_stream(path: Path) -> BinaryIO:
    """Open a path of `is_stream` for unbuffered writing. Raises `OSError`."""
    if str(path) in OWN_STREAMS:
        # Opening it again would write a file from its start, and fail for a socket.
        return os.fdopen(os.dup(OWN_STREAMS[str(path)]), "wb", buffering=0)
    return path.open("wb", buffering=0)


def open_new(path: Path, mode: int) -> BinaryIO:
    """Create a file with these permissions, less the umask's; unbuffered. Raises `OSError`."""
    return open(path, "xb", buffering=0, opener=lambda name, flags: os.open(name, flags, mode))


PRIVATE = 0o600
"""Permissions of files that contain prompts or what models wrote."""


def make_private_directory(path: Path) -> None:
    """Create a directory and its missing parents for the user alone; an existing one keeps its
    permissions. Raises `OSError`."""
    if not path.parent.exists():
        make_private_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def read_text(file: Path, what: str) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises `UserError`, which calls the file `what`, if it cannot be read.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the {what} {file}: {reason(error)}") from error
    # Without a mark, UTF-16 of Latin letters is also valid UTF-8, with a NUL for each letter.
    if content.startswith(_UTF_16) or content.count(0) > len(content) // 3:
        position = 0 if content.startswith(_UTF_16) else content.index(0)
        raise UserError(
            f"the {what} {file} looks like UTF-16, which is not read; save it as UTF-8: "
            f"{file.name} is not UTF-8 (byte {position})"
        )
    try:
        return io.TextIOWrapper(io.BytesIO(content), "utf-8-sig").read()
    except UnicodeDecodeError as error:
        raise UserError(f"the {what} {file} is not UTF-8 (byte {error.start})") from error


def read_prompts(file: Path) -> list[tuple[int, str]]:
    """The prompts of a UTF-8 text file, one a line, each with the number of its line from 1 on;
    empty lines are left out.

    Raises `UserError` if the file cannot be read or has no prompt.
    """
    lines = read_text(file, "file of prompts").split("\n")
    prompts = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not prompts:
        raise OptionError(f"{file} has no prompt; write one a line")
    return prompts
