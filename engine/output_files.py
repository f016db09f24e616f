"""Output files, written whole or not at all, and never over another."""

import errno
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import UserError, reason
from .files import PRIVATE, exists, is_stream, make_private_directory, open_new, open_stream


def check_writable(path: Path, *, private: bool = False) -> None:
    """Raise `UserError` if a new file cannot be made at `path`, or an output stream that is there
    be written to; leaves nothing behind but directories, `private` ones if told so."""
    if is_stream(path):
        if not os.access(path, os.W_OK):
            raise UserError(f"cannot write {path}: {os.strerror(errno.EACCES)}")
        return
    _refuse_existing(path)
    try:
        if private:
            make_private_directory(path.parent)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.open("xb").close()
        path.unlink()
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error


def write_new(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """Write a new file, text as UTF-8, or to an output stream that is there.

    Raises `UserError` if it exists or cannot be written.
    """
    check_writable(path, private=private)
    with new_file(path, private=private) as file:
        write_all(file, content.encode() if isinstance(content, str) else content)


@contextmanager
def new_file(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """What is written to a file beside `path` becomes `path` at the end; if anything fails, nothing
    is left. An output stream that is there is written to as it comes.

    Raises `UserError` if a file is there already or one cannot be written. For `write_all`.
    """
    try:
        if is_stream(path):
            sys.stdout.flush()
            with open_stream(path) as stream:
                yield stream
            return
        _refuse_existing(path)
        beside = path.with_name(f".prunetui-{secrets.token_hex(4)}")
        try:
            with open_new(beside, PRIVATE if private else 0o666) as file:
                yield file
            _rename_to_new(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error


def write_all(file: BinaryIO, content: bytes) -> None:
    """To an unbuffered file; a disk that fills up may take a part, and the next write says why."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _refuse_existing(path: Path) -> None:
    if exists(path):
        raise UserError(f"{path} exists already; name another file, none is ever overwritten")


def _rename_to_new(file: Path, path: Path) -> None:
    """Raises `FileExistsError` where a rename would overwrite."""
    try:
        os.link(file, path)
    except FileExistsError:
        raise
    except OSError:
        # Not every file system has links; then the name is taken first.
        path.open("xb").close()
        try:
            file.replace(path)
        except OSError:
            path.unlink()
            raise
