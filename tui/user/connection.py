"""The connection that a session hangs on."""

import os
import shlex
from contextlib import suppress
from pathlib import Path

from ...engine.errors import UserError
from .state_files import change_settings, read_settings

MULTIPLEXERS = ("TMUX", "STY", "ZELLIJ")
"""Environment variables that tmux, screen and zellij set for the programs in them."""


def connection_note(record_to: Path | None) -> str:
    """A sentence, once per user, if the session ends with the SSH connection; else empty."""
    if "SSH_CONNECTION" not in os.environ or any(name in os.environ for name in MULTIPLEXERS):
        return ""
    with suppress(UserError):
        if read_settings().told_of_ssh:
            return ""
        change_settings(told_of_ssh=True)
    way_back = (
        "--no-trace leaves nothing to resume"
        if record_to is None
        else f"the way back is prunetui --resume {shlex.quote(str(record_to))}"
    )
    return (
        "This session ends with the SSH connection: neither tmux nor screen runs around it. "
        f"If it breaks, {way_back}."
    )
