"""Paths as a person types them."""

import os
from pathlib import Path


def expanded(text: str) -> Path:
    """With `~` for the home directory; that of a user who is not there stays as it is."""
    return Path(os.path.expanduser(text))


def exists(path: Path) -> bool:
    """False also for what cannot be asked for: no right to look, or a name that is too long."""
    return os.path.exists(path)
