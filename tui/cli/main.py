"""Entry point of the command line: exit code 0, 2 for a user's mistake or 1 for ours."""

import logging
import os
import sys

from ...engine.errors import UserError, reason
from ...engine.out_of_memory import guard_memory
from ...engine.trace.printable import visible
from ..user.log_file import log_file, log_to_file
from . import (  # noqa: F401  (their commands are added to `app`)
    blame_commands,
    budget_commands,
    evaluation_commands,
    file_commands,
    sweep_commands,
)
from .commands import app
from .output import make_streams_fault_tolerant
from .shutdown import SHUTDOWN, ShutdownRequested, flush_and_exit

RESERVE_BYTES = 16 << 20
"""Address space, none of it written, that is freed for the last sentence when memory runs out."""

SPINS = "1000"
"""Checks, some microseconds in all, after which a waiting thread of OpenMP sleeps: one session is
as fast as ever then, and two on one machine share it fairly. `make bench` shows both."""

OUT_OF_MEMORY = "out of memory; a smaller model or fewer variants need less"


def main() -> None:
    limit_spinning()
    output = make_streams_fault_tolerant()
    log_to_file()
    code = 1
    try:
        with guard_memory(OUT_OF_MEMORY), SHUTDOWN:
            code = _run_command()
            if code == 0 and output is not None and (error := output.error):
                if not isinstance(error, BrokenPipeError):
                    _print_error(f"cannot write to stdout: {reason(error)}")
                code = 1
            if SHUTDOWN.code:
                # Torch may be in the middle of something, and the interpreter cannot end around it.
                flush_and_exit(SHUTDOWN.code)
    except ShutdownRequested:
        flush_and_exit(SHUTDOWN.code)
    except UserError as error:
        _print_error(str(error))
        code = 2
    sys.exit(code)


def limit_spinning() -> None:
    """Let OpenMP's threads sleep after a short spin, unless the user says how they wait.

    By default they spin for milliseconds, and take from the other sessions on the machine the cores
    that those wait for. Threads that sleep at once, as with OMP_WAIT_POLICY=passive, would make the
    step of one session alone a third slower. Torch's OpenMP reads this as it is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _run_command() -> int:
    """Run the command that the arguments name and return its exit code."""
    reserve = [bytearray(RESERVE_BYTES)]

    def release_and_say() -> str:
        reserve.clear()
        return OUT_OF_MEMORY

    try:
        with guard_memory(release_and_say):
            app()
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    except UserError as error:
        reserve.clear()
        _print_error(str(error))
        return 2
    except Exception:
        reserve.clear()
        # Work that a shutdown interrupts may raise anything.
        if SHUTDOWN.code:
            return 1
        logging.getLogger("prunetui").exception("the command line")
        _print_error(f"something went wrong in prunetui itself; {log_file()} has the details")
    return 1


def _print_error(sentence: str) -> None:
    print(f"prunetui: {visible(sentence)}", file=sys.stderr)
