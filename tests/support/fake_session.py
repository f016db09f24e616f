"""A session over made-up steps, for tests of the screen that need no model."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import msgspec
from prunetui.engine.errors import UserError
from prunetui.engine.options import Options
from prunetui.engine.progress import Progress
from prunetui.engine.session.changes import RestartChanges
from prunetui.engine.trace.blame import BlamedTokens, Causes, find_blame
from prunetui.engine.trace.records import Header
from prunetui.engine.trace.trace import Trace

from .blames import add_causes, made_up_blame
from .traces import make_header, make_lens, make_step

if TYPE_CHECKING:
    from prunetui.engine.variants.pruning.ranking import Similarity


def _new_trace(header: Header) -> Trace:
    trace = Trace(header)
    trace.preview = make_step(0)
    return trace


def _options_with(options: Options, changes: RestartChanges) -> Options:
    """Options of a session after a restart with changes."""
    named: dict[str, Any] = {name: new for name, new in changes.items() if name != "sampling"}
    if "answers" in changes:
        named["answer_tokens"] = None
    if "sampling" in changes:
        named |= msgspec.structs.asdict(changes["sampling"])
    return msgspec.structs.replace(options, **named)


class FakeSession:
    """`SessionPort` over made-up steps, which takes no variants, measures no importance and makes
    up blames."""

    def __init__(self, most: int = 64) -> None:
        self.most = most
        self.trace = _new_trace(make_header())
        self.recording: Path | None = None
        self.recording_error: str | None = None
        self.fails: Exception | None = None
        self.left_out: list[str] = []
        self.forced: list[tuple[int, dict[int, int]]] = []
        """Steps and tokens of each call of `force`."""
        self.closed = threading.Event()
        self.progress: Progress = lambda *_: None
        self.released = threading.Event()
        """Long work goes on while this is not set."""
        self.released.set()

    @property
    def finished(self) -> str | None:
        return f"{self.most} new tokens" if len(self.trace.steps) >= self.most else None

    def step(self, *, ahead: bool = False) -> None:  # noqa: ARG002
        if self.fails:
            raise self.fails
        # A step of a millisecond: none of a model's is shorter.
        self.closed.wait(0.001)
        self.trace.append(make_step(len(self.trace.steps)))

    def work(self, text: str, fraction: float | None = 0.25) -> None:
        """Report until it is released."""
        self.progress(text, fraction)
        while not self.released.wait(0.001):
            self.progress(text, fraction)
        self.progress(text, fraction)

    def read(self, number: int) -> None:
        self.work("reading the layers")
        self.trace.set_lens(number, make_lens())

    def blame(self, number: int, lane: int, tokens: BlamedTokens, what: Causes) -> None:
        if lane == 0:
            raise UserError("the baseline prunes nothing, so there is nothing to blame")
        self.work(f"reading 12 forms of {number + 3} tokens")
        found = made_up_blame(self.trace, number, lane, tokens)
        recorded = find_blame(self.trace.steps[number].blames, lane, tokens)
        self.trace.add_blame(number, add_causes(recorded, found, what))

    def force(self, at: int, tokens: dict[int, int]) -> None:
        self.forced.append((at, tokens))
        if self.trace.steps:
            self.trace.fork(at)
        self.step()

    def switch(self, branch: int) -> None:
        self.trace.switch(branch)

    def restart(self, **changes: Unpack[RestartChanges]) -> None:
        self.work("reading the prompt")
        header = self.trace.header
        changed = msgspec.structs.replace(
            header,
            context=changes.get("context", header.context),
            prompt=msgspec.structs.replace(
                header.prompt,
                text=changes.get("prompt", header.prompt.text),
                tokens=[*changes.get("prompt_tokens", header.prompt.tokens)],
                chat_template=not changes.get("raw", not header.prompt.chat_template),
            ),
            sampling=changes.get("sampling", header.sampling),
            options=header.options and _options_with(header.options, changes),
        )
        if changed == header:
            self.trace.rewind(0)
        else:
            self.trace = _new_trace(changed)

    def set_variants(self, recipes: Sequence[str]) -> None:
        raise UserError(f"a made-up session takes no variants, and not {recipes}")

    def importance(self) -> "Similarity":
        raise UserError("a made-up session measures no importance")

    def end(self) -> None:
        self.closed.set()
