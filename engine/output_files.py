"""Output files, written whole or not at all, and never over another."""

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import UserError, reason
from .files import PRIVATE, exists, is_stream, make_private_directory, open_new, open_stream


def check_writable(path: Path, *, private: bool = False) -> None:
    """Raise `UserError` if no new file can be made at `path`, nor an existing output stream written
    to; creates only missing directories, private ones if `private`."""
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
    """Write a new file, text as UTF-8, or to an existing output stream.

    Raises `UserError` if the file exists or cannot be written.
    """
    check_writable(path, private=private)
    with new_file(path, private=private) as file:
        write_all(file, content.encode() if isinstance(content, str) else content)


@contextmanager
def new_file(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Context with an unbuffered file that becomes `path` at the end, or vanishes on an error.

    An existing output stream is written to directly; write with `write_all`. Raises `UserError` if
    the file exists or cannot be written.
    """
    try:
        if is_stream(path):
            sys.stdout.flush()
            with open_stream(path) as stream:
                yield stream
            return
        _refuse_existing(path)
        unfinished = path.with_name(f".prunetui-{secrets.token_hex(4)}")
        try:
            with open_new(unfinished, PRIVATE if private else 0o666) as file:
                yield file
            _rename_to_new(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error


def write_new_directory(path: Path, files: Iterable[tuple[str, str]]) -> None:
    """Write a new directory of text files in UTF-8, by their paths in it; whole or not at all.

    Raises `UserError` if it exists or cannot be written.
    """
    _refuse_existing(path)
    unfinished = path.with_name(f".prunetui-{secrets.token_hex(4)}")
    try:
        try:
            for name, content in files:
                file = unfinished / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.encode())
            os.rename(unfinished, path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error


def write_all(file: BinaryIO, content: bytes) -> None:
    """Write to an unbuffered file; a full disk may take a part, and the next write raises."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _refuse_existing(path: Path) -> None:
    if exists(path):
        raise UserError(f"{path} exists already; name another file, none is ever overwritten")


def _rename_to_new(file: Path, path: Path) -> None:
    """Rename a file; raise `FileExistsError` instead of overwriting."""
    try:
        os.link(file, path)
    except FileExistsError:
        raise
    except OSError:
        # Not every file system has links: reserve the name first.
        path.open("xb").close()
        try:
            file.replace(path)
        except OSError:
            path.unlink()
            raise
