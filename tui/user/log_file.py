"""The log file, which takes all that must not be printed on the screen."""

import contextlib
import errno
import logging
import os
import sys
import threading
from pathlib import Path

import platformdirs

from ...engine.files import PRIVATE, make_private_directory


def log_file() -> Path:
    return platformdirs.user_state_path("prunetui") / "prunetui.log"


def _open_log() -> int:
    """Open for this user alone: exceptions quote prompts."""
    return os.open(log_file(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, PRIVATE)


def log_to_file() -> None:
    """Send every logger's messages and Python's warnings to the log file, if it can be written."""
    try:
        make_private_directory(log_file().parent)
        os.close(_open_log())
        handler: logging.Handler = logging.FileHandler(log_file(), encoding="utf-8")
    except OSError:
        handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(name)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.captureWarnings(True)
    # Out of memory, neither the log nor a destructor may write over the sentence that says so.
    logging.raiseExceptions = False
    sys.unraisablehook = _log_unraisable
    threading.excepthook = _log_end_of_thread


def _log_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    with contextlib.suppress(Exception):
        logging.getLogger("prunetui").warning(
            "ignored in %r: %r", unraisable.object, unraisable.exc_value
        )


def _log_end_of_thread(end: threading.ExceptHookArgs) -> None:
    error = end.exc_value
    # The terminal has gone while a thread drew on it: nothing that a traceback would explain.
    traceback = None if isinstance(error, OSError) and error.errno == errno.EIO else error
    name = end.thread.name if end.thread else ""
    with contextlib.suppress(Exception):
        logging.getLogger("prunetui").error("thread %s ended: %s", name, error, exc_info=traceback)


def send_stderr_to_log() -> None:
    """Send what native code writes to stderr to the log; Textual keeps the terminal's stderr.

    Textual draws on `sys.__stderr__`; a library's line in between would garble the screen.
    """
    try:
        log = _open_log()
    except OSError:
        log = os.open(os.devnull, os.O_WRONLY)
    sys.__stderr__ = open(os.dup(2), "w", encoding="utf-8")  # noqa: SIM115
    os.dup2(log, 2)
    os.close(log)


def restore_stderr() -> None:
    """Give stderr back the terminal, for a program that takes the place of this one."""
    if sys.__stderr__ is not None:
        os.dup2(sys.__stderr__.fileno(), 2)
