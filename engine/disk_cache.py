"""Directories in the user's cache of what is slow to make and is needed in later sessions."""

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import platformdirs

from .errors import UserError, reason
from .files import exists


def cached(kind: str, key: list[str], fill: Callable[[Path], None]) -> Path:
    """A directory that `fill` has filled, once per `kind` and `key`.

    It is filled under a temporary name and then renamed, so that no session sees half of it. Raises
    `UserError` if the cache cannot be written.
    """
    directory = _directory(kind, key)
    if exists(directory):
        return directory
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=directory.parent))
    except OSError as error:
        raise UserError(
            f"nothing can be kept in the cache directory {directory.parent} ({reason(error)}); "
            "set XDG_CACHE_HOME to one that can be written"
        ) from error
    try:
        fill(unfinished)
        try:
            os.rename(unfinished, directory)
        except OSError:
            # Another session has filled it meanwhile.
            if not directory.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return directory


def remove_cached(kind: str, key: list[str]) -> None:
    """Remove a directory of the cache if it is there; no session sees half of it meanwhile."""
    directory = _directory(kind, key)
    removed = directory.with_name(f"removed-{secrets.token_hex(8)}")
    with suppress(OSError):
        os.rename(directory, removed)
    shutil.rmtree(removed, ignore_errors=True)


def _directory(kind: str, key: list[str]) -> Path:
    digest = hashlib.sha256("\0".join(key).encode()).hexdigest()[:24]
    return platformdirs.user_cache_path("prunetui") / kind / digest
