"""A session over made-up steps, for tests of the screen that need no model."""

import threading
from pathlib import Path

import msgspec
from prunetui.engine.options import Context
from prunetui.engine.trace.records import Sampling
from prunetui.engine.trace.trace import Trace

from .traces import make_header, make_step


class FakeSession:
    """The session's interface over made-up steps."""

    def __init__(self, most: int = 64) -> None:
        self.most = most
        self.trace = Trace(make_header())
        self.recording: Path | None = None
        self.recording_error: str | None = None
        self.fails: Exception | None = None
        self.left_out: list[str] = []
        self.closed = threading.Event()

    @property
    def finished(self) -> str | None:
        return f"{self.most} new tokens" if len(self.trace.steps) >= self.most else None

    def step(self) -> None:
        if self.fails:
            raise self.fails
        # A step of a millisecond: none of a model's is shorter.
        self.closed.wait(0.001)
        self.trace.append(make_step(len(self.trace.steps)))

    def restart(
        self,
        prompt: str | None = None,
        context: Context | None = None,
        answers: tuple[str, ...] | None = None,  # noqa: ARG002
        sampling: Sampling | None = None,
        raw: bool | None = None,
    ) -> None:
        header = self.trace.header
        templated = header.prompt.chat_template if raw is None else not raw
        changed = msgspec.structs.replace(
            header,
            context=context or header.context,
            prompt=msgspec.structs.replace(
                header.prompt, text=prompt or header.prompt.text, chat_template=templated
            ),
            sampling=sampling or header.sampling,
        )
        if changed == header:
            self.trace.rewind(0)
        else:
            self.trace = Trace(changed)

    def end(self) -> None:
        self.closed.set()
