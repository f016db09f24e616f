"""Lanes that drop more and more of one kind of sublayer, decoded in lockstep over some prompts."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..cpu.backend import backend_for
from ..errors import OptionError, UserError
from ..model.dropped import Dropped
from ..model.prompts import read_prompt
from ..options import Options
from ..out_of_memory import out_of_memory, release_failed_attempt
from ..progress import Progress
from ..trace.analysis.budget import Measured
from ..trace.analysis.lane_figures import lane_figures
from ..trace.divergence import chosen_tokens
from ..trace.file import SUFFIX
from ..trace.records import MAX_LANES
from ..variants.builder import (
    KIND_NAMES,
    LaneModel,
    VariantBuilder,
    check_droppable,
    open_builder,
)
from ..variants.pruning.ranking import droppable_count
from ..variants.recipes import Drop, Kind, parse
from .session import Session


@dataclass(frozen=True)
class BudgetRequest:
    """What to drop, up to how much, and after which prompts."""

    kind: Kind
    most: int | None
    """Largest number dropped; None for half of what there is, rounded up."""
    prompts: Sequence[tuple[str, str]]
    """What an error calls a prompt, and the prompt."""
    record_to: Path | None
    """Directory of the traces."""
    by: str | None = None
    """What recipes rank by, as they say it: kl or kl:FILE; None for similarity."""

    def recipe(self, number: int) -> str:
        """Recipe of the lane that drops so many; a control for 0."""
        by = f",by={self.by}" if self.by else ""
        return f"drop:{self.kind}={number}{by}" if number else "control"


def open_budget(options: Options, request: BudgetRequest, progress: Progress) -> "Budget":
    """Load the model, rank its sublayers and read the prompts.

    Raises `UserError` for a family that takes no dropping, for more than there is to drop, and for
    a prompt that the model cannot read.
    """
    builder = open_builder(options, progress)
    check_droppable(builder.baseline)
    depth = len(builder.baseline.anatomy.layers)
    there = droppable_count(Drop(request.kind), depth, Dropped())
    most = math.ceil(there / 2) if request.most is None else request.most
    if most > there:
        raise OptionError(
            f"--max is {most}, and the model has {there} {KIND_NAMES[request.kind]} to drop; ask "
            f"for at most {there}"
        )
    for name, prompt in request.prompts:
        try:
            read_prompt(prompt, builder.loaded, options.raw)
        except UserError as error:
            raise OptionError(f"{name}: {error}" if name else str(error)) from error
    lanes = [builder.build(parse(request.recipe(number))) for number in range(most + 1)]
    return Budget(builder, lanes, options, request, progress)


class Budget:
    """Decodes a lane for each number dropped, as many in lockstep as the device takes."""

    def __init__(
        self,
        builder: VariantBuilder,
        lanes: Sequence[LaneModel],
        options: Options,
        request: BudgetRequest,
        progress: Progress,
    ) -> None:
        """`lanes`: the one at an index drops as many."""
        self._builder = builder
        self._lanes = lanes
        self._options = msgspec.structs.replace(options, context="both")
        self._request = request
        self._progress = progress
        self._decoded = 0
        """Steps times lanes so far, those that a lane has ended before included."""
        self._texts: dict[int, list[int]] = {}
        """The baseline's tokens by prompt."""
        self.notes: list[str] = []
        """Sentences that a reader of the figures must know."""

    @property
    def most(self) -> int:
        """Largest number dropped."""
        return len(self._lanes) - 1

    @property
    def noun(self) -> str:
        """What the numbers count."""
        return KIND_NAMES[self._request.kind]

    @property
    def model(self) -> str:
        return self._builder.loaded.name

    def measure(self) -> Iterator[list[Measured]]:
        """Yield the figures of some lanes after one prompt as soon as they are there.

        Raises `UserError` if memory runs out with a single variant, or a trace cannot be written.
        """
        pending = [(batch, 0) for batch in equal_batches(len(self._lanes), self._most_variants())]
        while pending:
            batch, done = pending.pop(0)
            try:
                for measured in self._measure_batch(batch, done):
                    done += 1
                    yield measured
            except UserError as error:
                if batch.size == 1 or not _memory_ran_out(error):
                    raise
                release_failed_attempt(error)
                halves = batch.halves()
                pending[:0] = [(half, done) for half in halves]
                self._note(
                    f"Memory ran out with {batch.size} variants at once; {halves[0].size} at once "
                    "are decoded instead."
                )

    def _most_variants(self) -> int:
        """Variants at once: a CPU's compiled step takes so many rows, and a variant has two."""
        model = self._builder.loaded.model
        backend = backend_for(model.device, model.dtype)
        return (backend.max_rows - 1) // 2 if backend else MAX_LANES - 1

    def _measure_batch(self, batch: "LaneBatch", first: int) -> Iterator[list[Measured]]:
        """Decode the lanes of a batch after each prompt from index `first` on."""
        session: Session | None = None
        try:
            for prompt in range(first, len(self._request.prompts)):
                if session is None:
                    session = self._open(batch, prompt)
                else:
                    session.restart(prompt=self._request.prompts[prompt][1])
                self._decode(session, batch, prompt)
                yield self._figures(session, batch, prompt)
        finally:
            if session is not None:
                session.close()

    def _open(self, batch: "LaneBatch", prompt: int) -> Session:
        baseline, _ = self._builder.build_lanes(())
        variants = [self._lanes[number] for number in batch.numbers]
        # A lane's numbers depend on the number of rows: controls fill up the last batch.
        variants += [self._lanes[0]] * (batch.size - len(variants))
        options = msgspec.structs.replace(
            self._options,
            variants=tuple(str(lane.recipe) for lane in variants),
            prompt=self._request.prompts[prompt][1],
        )
        directory = self._request.record_to
        file = f"{self._request.kind}-{batch}{SUFFIX}".replace(" ", "-")
        record_to = None if directory is None else directory / file
        return Session(
            self._builder, [*baseline, *variants], [], options, record_to, self._progress
        )

    def _decode(self, session: Session, batch: "LaneBatch", prompt: int) -> None:
        """Decode one prompt to its end, reporting the share that is done of all lanes' steps."""
        count, steps, lanes = (
            len(self._request.prompts),
            self._options.max_new_tokens,
            batch.numbers,
        )
        stage = f"decoding {batch} dropped"
        if count > 1:
            stage += f", prompt {prompt + 1} of {count}"
        whole = len(self._lanes) * count * steps
        while session.finished is None:
            done = self._decoded + len(session.trace.steps) * len(lanes)
            self._progress(stage, done / whole)
            session.step(ahead=True)
            if session.recording_error is not None:
                raise UserError(session.recording_error)
        self._decoded += steps * len(lanes)

    def _figures(self, session: Session, batch: "LaneBatch", prompt: int) -> list[Measured]:
        header, steps = session.trace.header, session.trace.steps
        for note in header.notes:
            self._note(note)
        text = chosen_tokens(steps, 0)
        if self._texts.setdefault(prompt, text) != text:
            self._note(
                f"The baseline's text after prompt {prompt + 1} is another one beside {batch} "
                "dropped than beside those before: rounding differs with the number of rows."
            )
        return [
            Measured(number, prompt, lane_figures(header, steps, lane))
            for lane, number in enumerate(batch.numbers, start=1)
        ]

    def _note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)


@dataclass(frozen=True)
class LaneBatch:
    """Numbers whose lanes are decoded together."""

    numbers: range
    size: int
    """Number of variants, controls that fill it up included."""

    def __str__(self) -> str:
        first, last = self.numbers[0], self.numbers[-1]
        return f"{first}" if first == last else f"{first} to {last}"

    def halves(self) -> list["LaneBatch"]:
        """The numbers in batches of half the size, rounded up."""
        size = -(-self.size // 2)
        parts = [self.numbers[:size], self.numbers[size:]]
        return [LaneBatch(part, size) for part in parts if part]


def equal_batches(count: int, most: int) -> list[LaneBatch]:
    """Numbers 0 to `count` - 1 in as few batches of one size as hold at most `most` each."""
    size = -(-count // -(-count // most))
    return [LaneBatch(range(count)[first : first + size], size) for first in range(0, count, size)]


def _memory_ran_out(error: UserError) -> bool:
    return error.__cause__ is not None and out_of_memory(error.__cause__)
