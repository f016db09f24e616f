"""The command line in this process, and programs that run it in another."""

import sys

import pytest
from prunetui.tui.cli.main import main


def prunetui(*arguments: object) -> int:
    """Run a command in this process; return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["prunetui", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            main()
    code = done.value.code or 0
    assert isinstance(code, int)
    return code


def complaint(capsys, *arguments: object) -> str:
    """Run a command that must exit with code 2; return the sentence on stderr."""
    assert prunetui(*arguments) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return " ".join(said.split())


MAIN = "from prunetui.tui.cli.main import main; main()"


WITHOUT_TORCH = """
import sys, time, types
from prunetui.engine.trace.file import TraceWriter
from prunetui.engine.trace.trace import Trace
from tests.support.traces import make_header, make_step

class Session:
    finished = recording_error = None
    left_out = []
    def __init__(self, path):
        self.trace = Trace(make_header())
        self.recording = path
        self.file = TraceWriter(path, self.trace.header)
    def step(self, *, ahead):
        self.trace.append(make_step(len(self.trace.steps)))
        self.file.write(self.trace.steps[-1])
        time.sleep(0.01)
        if len(self.trace.steps) == 10:
            at_step_10()
    def end(self):
        self.file.close()

def open_session(options, path, report):
    at_loading()
    return Session(path)

def at_loading(): pass
def at_step_10(): pass

sys.modules["prunetui.engine.session.session"] = module = types.ModuleType("session")
module.open_session = open_session
"""
"""A program that runs `record` on a session of made-up steps, so that it starts at once."""
