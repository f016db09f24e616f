"""What is kept between sessions because it is slow to make: in the user's cache directory."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from .errors import UserError, reason
from .files import exists


def cached(kind: str, key: list[str], make: Callable[[Path], None]) -> Path:
    """The directory that `make` fills, made once per `kind` and `key`.

    It is filled under a temporary name and then renamed, so that nobody sees half of it. Raises
    `UserError` where nothing can be written.
    """
    digest = hashlib.sha256("\0".join(key).encode()).hexdigest()[:24]
    place = platformdirs.user_cache_path("prunetui") / kind / digest
    if exists(place):
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=place.parent))
    except OSError as error:
        raise UserError(
            f"nothing can be kept in the cache directory {place.parent} ({reason(error)}); "
            "set XDG_CACHE_HOME to one that can be written"
        ) from error
    try:
        make(unfinished)
        try:
            os.rename(unfinished, place)
        except OSError:
            # Another session made it meanwhile.
            if not place.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return place
