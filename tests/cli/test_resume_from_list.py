"""Resuming a session from the list, which starts the program again in place of itself."""

import os
from pathlib import Path

from prunetui.engine.options import Options
from prunetui.tui.user.recorded_sessions import sessions_directory

from ..support.command_line import MAIN
from ..support.recorded import write_recorded
from .test_shutdown import Running

SAYS_ITS_ARGUMENTS = f"""
import os, sys
if "--resume" in sys.argv:
    open_files = [fd for fd in map(int, os.listdir("/dev/fd")) if fd > 3]
    print(sys.argv[1:], open_files, os.isatty(2), file=sys.stderr)
    sys.exit(7)
{MAIN}
"""
"""Program that is `prunetui` until it is to resume."""


def test_r_goes_on_as_resume_in_the_same_process() -> None:
    path = write_recorded(sessions_directory(), "a", options=Options())
    with Running(SAYS_ITS_ARGUMENTS, "replay", "--theme", "mono") as running:
        running.wait_until(lambda: b"6 steps;" in running.received)
        os.write(running.screen, b"r")
        assert running.code() == 7
    said = f"['--resume', '{path}', '--theme', 'mono'] [] True"
    assert said.encode() in running.received.replace(b"\r\n", b"")


def test_replay_lists_another_directory(tmp_path: Path) -> None:
    write_recorded(tmp_path, "elsewhere")
    with Running(MAIN, "replay", tmp_path) as running:
        running.wait_until(lambda: b"6 steps;" in running.received)
        assert b"elsewhere" in running.received
        os.write(running.screen, b"q")
        assert running.code() == 0
