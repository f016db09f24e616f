"""Paths as a person types them."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

OWN_STREAMS = {"/dev/stdout": 1, "/dev/fd/1": 1, "/dev/stderr": 2, "/dev/fd/2": 2}
"""What a shell's redirections are called; a file that one leads to is the shell's, and is there."""


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
