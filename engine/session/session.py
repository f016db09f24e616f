"""A session: a lockstep decoder with a trace, which is all that a front end drives."""

import secrets
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Unpack

import msgspec
from torch import Tensor

from ..decode.bandwidth import read_bandwidth
from ..decode.prepared_lanes import PreparedLanes
from ..errors import UserError
from ..measure.logit_lens import check_lens
from ..model.description import check_same_model, describe_model
from ..model.outputs import Outputs
from ..model.prompts import ReadPrompt, asked_answers, read_asked, reads_same, recorded_prompt
from ..options import Context, Options, default_variants
from ..out_of_memory import guard_memory, roll_back
from ..progress import Progress
from ..results.records import Header
from ..trace import records
from ..trace.blame import Blame, BlamedTokens, Causes
from ..trace.trace import Trace
from ..variants.builder import LaneModel, VariantBuilder, check_droppable, open_builder
from ..variants.pruning.ranking import Similarity
from ..variants.recipes import Recipe, parse
from .blaming import blame_step
from .changes import RestartChanges, changed_options, options_as_read
from .ends import running_lanes, why_finished, why_full
from .evaluated import check_evaluated
from .header import check_resumable, make_header
from .history import TokenHistory
from .recording import Recording
from .step_builder import StepBuilder


def open_session(
    options: Options,
    record_to: Path | None,
    progress: Progress,
    resume: Trace | None = None,
    evaluation: Header | None = None,
) -> "Session":
    """Load the model, apply the recipes, read the prompt; record to a new file if one is named.

    With a trace to resume, decoding goes on from its end, and the new file begins with its steps.
    With the header of an evaluation, the model is to be its own.
    Raises `UserError` for anything that the options got wrong.
    """
    recipes = [parse(text) for text in options.variants or ()]
    builder = open_builder(options, progress)
    if options.variants is None:
        variants = default_variants(len(builder.baseline.anatomy.layers))
        recipes = [parse(text) for text in variants]
        options = msgspec.structs.replace(options, variants=variants)
    lanes, left_out = builder.build_lanes(recipes)
    if evaluation is not None:
        left_out = [*left_out, *check_evaluated(evaluation, builder.loaded, lanes)]
    return Session(builder, lanes, left_out, options, record_to, progress, resume)


class Session:
    """Decodes the baseline and its variants in lockstep and appends each step to `trace`."""

    def __init__(
        self,
        builder: VariantBuilder,
        models: list[LaneModel],
        left_out: list[str],
        options: Options,
        record_to: Path | None,
        progress: Progress,
        resume: Trace | None = None,
    ) -> None:
        self._builder = builder
        self._loaded = loaded = builder.loaded
        self._options = options
        self._progress = progress
        self._name = secrets.token_hex(8)
        self.left_out = left_out
        """A sentence for each variant that there was no memory for, or that is not what was
        evaluated."""
        self._model = describe_model(loaded)
        if resume is None:
            prompt = read_asked(options, loaded)
        else:
            check_same_model(resume.header.model, self._model)
            prompt = recorded_prompt(resume.header, options, loaded)
        progress("preparing the step (compiled once)", None)
        self._bandwidth = read_bandwidth(loaded.model.device, loaded.model.dtype)
        if options.lens:
            check_lens(models[0].group)
        self.lanes = self._prepare(models, options.context, prompt.record.tokens)
        """The lockstep that decodes, with recipe and weights of each lane."""
        if left_out:
            built = tuple(str(lane.recipe) for lane in models[1:])
            options = msgspec.structs.replace(options, variants=built)
        self._recording = Recording(record_to, options.keep)
        with roll_back(self.lanes.remove):
            self._begin(prompt, options, resume)

    # -- what a front end calls ---------------------------------------------------------------

    @property
    def recording(self) -> Path | None:
        """The newest file written, whole or not."""
        return self._recording.path

    @property
    def recording_error(self) -> str | None:
        """Why nothing is being written any more; decoding goes on unrecorded."""
        return self._recording.error

    @property
    def finished(self) -> str | None:
        """Why no step can follow; None while one can."""
        return why_finished(self.trace.header, self.trace.steps)

    def step(self, forced: dict[int, int] | None = None, *, ahead: bool = False) -> records.Step:
        """Decode one token in every lane; those in `forced` take the token given.

        `ahead` has a GPU begin with the next step while this one is recorded.
        Raises `UserError` if no step can follow or memory runs out; the trace is then unchanged.
        """
        if why := self.finished:
            raise UserError(f"nothing is left to decode: {why}")
        began, number = time.perf_counter(), len(self.trace.steps)
        with self._guard_step(number):
            outputs = self._history.outputs_before(number, self._steps.reduction)
        return self._append_step(outputs, forced or {}, began, ahead=ahead)

    def read(self, number: int) -> None:
        """Read a recorded step through the logit lens.

        Raises `UserError` if the model's family has no such lens or memory runs out.
        """
        check_lens(self.lanes.models[0].group)
        running = running_lanes(self.trace.steps[:number], len(self.lanes.models))
        try:
            with guard_memory(f"out of memory while reading the layers at step {number}"):
                outputs = self._history.outputs_again(number)
                lens = self._steps.lens(
                    outputs, running, lambda done: self._progress("reading the layers", done)
                )
        except BaseException:
            self._history.forget_caches()
            raise
        self.trace.set_lens(number, lens)
        self._recording.write(records.Read(step=number, lens=lens))

    def blame(self, number: int, lane: int, tokens: BlamedTokens, what: Causes) -> Blame:
        """Find and record which parts, earlier tokens or depth a lane's token at a step comes from.

        Raises `UserError` where there is nothing to blame or memory runs out.
        """
        lanes, trace, texts = self.lanes, self.trace, self._steps.token_texts
        blame = blame_step(lanes, trace, texts, self._progress, number, lane, tokens, what)
        trace.add_blame(number, blame)
        self._recording.write(records.Blamed(step=number, blame=blame))
        return blame

    def rewind(self, to: int) -> None:
        """Take back all but the first `to` steps."""
        self.trace.rewind(to)
        self._history.rewind(to)
        self._steps.read_texts()
        self._recording.write(records.Rewind(to=to))

    def force(self, at: int, tokens: dict[int, int]) -> records.Step:
        """Begin a branch with these tokens, by lane, at step `at`; the other lanes choose theirs.

        Before any step there is nothing to branch off from: decoding begins with them. A branch
        that has them there already is switched to.
        Raises `UserError` if no step can follow there, a lane had ended by then, would not read
        what it is given, or if that is what the lanes took.
        """
        before = self.trace.steps[:at]
        if why := why_finished(self.trace.header, before):
            raise UserError(f"nothing can be forced there: {why}")
        if self.trace.header.context == "forced" and 0 not in tokens:
            raise UserError(
                "in a forced context every lane reads the baseline's tokens; force the baseline's"
            )
        running = running_lanes(before, len(self.lanes.models))
        for lane in tokens:
            if not running[lane]:
                raise UserError(
                    f"{self.trace.lane_names[lane]} has ended before step {at}; "
                    "force a token at an earlier step"
                )
        if (branch := self.trace.branch_with(at, tokens)) is not None:
            self.switch(branch)
            return self.trace.steps[at]
        began, parent = time.perf_counter(), self.trace.branch
        # Before there is a branch: this may read many tokens, and be cancelled.
        with self._guard_step(at):
            outputs = self._history.outputs_before(at, self._steps.reduction)
        if self.trace.steps:
            self.trace.fork(at)
            self._history.fork(parent, at)
            self._steps.read_texts()
            self._recording.write(records.Branch(parent=parent, at=at))
        return self._append_step(outputs, tokens, began)

    def switch(self, branch: int) -> None:
        """Go on with another branch; the caches keep what the two share."""
        self.trace.switch(branch)
        self._steps.read_texts()
        self._recording.write(records.Switch(to=branch))

    def restart(self, **changes: Unpack[RestartChanges]) -> None:
        """Decode from the prompt again; changes that differ from before begin a new trace and file.

        Raises `UserError` for a prompt or an answer that cannot be read, where the model has no
        chat template and `raw=False` needs one, or memory runs out; nothing has changed then.
        """
        if changes.get("raw") is False and not self._loaded.tokenizer.chat_template:
            raise UserError("the model brings no chat template; its prompts are read raw")
        before, templated = self._options, self.trace.header.prompt.chat_template
        options = changed_options(before, changes, templated=templated)
        if options == before:
            self.rewind(0)
            return
        with guard_memory(
            f"out of memory in context {options.context}; the one before goes on, and fewer "
            "variants need less"
        ):
            same = reads_same(options, before)
            # Read again, a prompt may differ: a chat template may write the date.
            self._begin(self._prompt if same else read_asked(options, self._loaded), options)

    def importance(self) -> Similarity:
        """Similarities of the baseline's sublayers and layers, measured once per model and
        calibration.

        Raises `UserError` if the family takes no dropping or the text cannot be used.
        """
        check_droppable(self._builder.baseline)
        with (
            roll_back(self.lanes.install),
            guard_memory("out of memory while ranking the sublayers"),
        ):
            self.lanes.remove()
            similarity = self._builder.baseline_similarity()
        self.lanes.install()
        return similarity

    def set_variants(self, recipes: Iterable[str]) -> None:
        """Decode the prompt again with other variants, in a new trace and file.

        Weights that are made already are used again, and those that no lane reads are freed.
        Raises `UserError` for a recipe that does not parse or apply; nothing has changed then.
        """
        parsed = [parse(recipe) for recipe in recipes]
        before = self.lanes, self._options

        def put_back() -> None:
            if self.lanes is not before[0]:
                self.lanes.remove()
            self.lanes, self._options = before
            self._builder.forget_all_but(self.lanes.models)
            self.lanes.install()

        # Outside the guard: what fails as lanes are put back is no refusal that left all as it was.
        with (
            roll_back(put_back),
            guard_memory(
                "out of memory with these variants; those before go on, and fewer need less"
            ),
        ):
            self.left_out = self._replace_lanes(parsed)
        self._builder.forget_all_but(self.lanes.models)

    def _replace_lanes(self, recipes: list[Recipe]) -> list[str]:
        """Decode the prompt again with other variants; return a sentence for each left out."""
        header = self.trace.header
        self.lanes.remove()
        models, left_out = self._builder.build_lanes(recipes)
        self.lanes = self._prepare(models, header.context, header.prompt.tokens)
        options = msgspec.structs.replace(
            self._options, variants=tuple(str(lane.recipe) for lane in models[1:])
        )
        self._begin(self._prompt, options)
        return left_out

    def close(self) -> None:
        """Close the trace's file and leave the model as it was."""
        self.end()
        self.lanes.remove()

    def end(self) -> None:
        """Close the trace's file, in a process that has no more use for the model."""
        self._recording.close()

    # -- one trace ----------------------------------------------------------------------------

    def _guard_step(self, number: int) -> ExitStack:
        """Guard of a part of a step: after an error all is read again, from the prompt on."""
        guards = ExitStack()
        guards.enter_context(roll_back(self._forget_step))
        guards.enter_context(
            guard_memory(
                f"out of memory at step {number}; the steps before it stand, and "
                "a shorter prompt or fewer variants need less"
            )
        )
        return guards

    def _forget_step(self) -> None:
        """Forget what the caches and the lanes' texts may have of a step that failed."""
        self._history.forget_caches()
        self._steps.read_texts()

    def _append_step(
        self, outputs: Outputs, forced: dict[int, int], began: float, *, ahead: bool = False
    ) -> records.Step:
        """Build, record and return the next step; `began` is the `perf_counter()` of its begin."""
        number = len(self.trace.steps)
        ahead = (
            ahead
            and number > 0
            and self.lanes.lockstep.static
            and not self._steps.keeps_outputs
            and why_full(self.trace.header, number + 1) is None
        )

        def read_ahead(chosen: Tensor) -> None:
            if ahead:
                self._history.read_ahead(chosen, self._steps.reduction)

        with self._guard_step(number):
            step, chosen = self._steps.build(outputs, forced, began, read_ahead)
        self._history.append(chosen)
        self.trace.append(step)
        self._recording.write(step)
        return step

    def _prepare(
        self, models: list[LaneModel], context: Context, prompt: list[int]
    ) -> PreparedLanes:
        return PreparedLanes(models, context, prompt, self._progress, graphs=self._options.graphs)

    def _begin(self, prompt: ReadPrompt, options: Options, resume: Trace | None = None) -> None:
        """Begin a new trace and file with the lanes; after an error, the trace before goes on."""
        if resume is None:
            answers = asked_answers(options, self._loaded, prompt.text)
        else:
            answers = resume.header.answers
        options = options_as_read(options, prompt.record, answers)
        with roll_back(self.lanes.set_context(options.context)):
            self._begin_in_context(prompt, answers, options, resume)

    def _begin_in_context(
        self,
        prompt: ReadPrompt,
        answers: records.Answers | None,
        options: Options,
        resume: Trace | None,
    ) -> None:
        header = make_header(
            self._model,
            self.lanes,
            options,
            prompt.record,
            answers,
            prompt.notes,
            self._bandwidth,
            self._name,
        )
        trace = Trace(header)
        if resume is not None:
            check_resumable(resume.header, trace.header)
            for event in resume.events():
                if isinstance(event, records.Step):
                    # Recorded vectors stay beside the old file.
                    event = msgspec.structs.replace(event, block=None)
                trace.apply(event)
        history = TokenHistory(self.lanes, trace, self._progress)
        steps = StepBuilder(
            self._loaded,
            self.lanes,
            trace,
            self._recording,
            candidates=options.candidates,
            with_lens=options.lens,
        )
        with guard_memory(
            "out of memory after the prompt was read; a shorter one or fewer variants need less"
        ):
            trace.preview = steps.preview(history.outputs_before(0))
        self._history, self._steps = history, steps
        self.trace, self._prompt, self._options = trace, prompt, options
        self._recording.begin(trace.header)
        for event in trace.events():
            self._recording.write(event)
