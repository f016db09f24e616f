"""A session: a lockstep decoder with a trace, which is all that a front end drives."""

import itertools
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Unpack

import msgspec
import torch
from torch import Tensor

from ..decode.bandwidth import read_bandwidth
from ..decode.prepared_lanes import PreparedLanes
from ..errors import UserError
from ..measure.logit_lens import check_lens, read_lens
from ..measure.step_numbers import StepNumbers, StepRequest, step_numbers
from ..measure.step_record import (
    answer_records,
    candidate_records,
    drift_records,
    layer_records,
    token_records,
)
from ..model.detokenize import LaneText, TokenTexts
from ..model.generation import end_tokens
from ..model.memory import memory_in_use
from ..model.outputs import Outputs
from ..model.prompts import ReadPrompt, find_answers, read_prompt, recorded_prompt
from ..options import Context, Options, default_variants
from ..out_of_memory import out_of_memory
from ..progress import Progress
from ..trace import records
from ..trace.trace import Trace
from ..variants.builder import LaneModel, VariantBuilder, check_droppable, open_builder
from ..variants.pruning.ranking import Similarity
from ..variants.recipes import parse
from .changes import RestartChanges
from .header import check_resumable, check_same_model, describe_model, make_header
from .recording import Recording

log = logging.getLogger(__name__)


def open_session(
    options: Options, record_to: Path | None, progress: Progress, resume: Trace | None = None
) -> "Session":
    """Load the model, apply the recipes, read the prompt; record to a new file if one is named.

    With a trace to resume, decoding goes on from its end, and the new file begins with its steps.
    Raises `UserError` for anything that the options got wrong.
    """
    recipes = [parse(text) for text in options.variants or ()]
    builder = open_builder(options, progress)
    if options.variants is None:
        variants = default_variants(len(builder.baseline.anatomy.layers))
        recipes = [parse(text) for text in variants]
        options = msgspec.structs.replace(options, variants=variants)
    lanes, left_out = builder.build_lanes(recipes)
    return Session(builder, lanes, left_out, options, record_to, progress, resume)


class Session:
    """Decodes the baseline and its variants in lockstep and appends each step to `trace`."""

    def __init__(
        self,
        builder: VariantBuilder,
        lanes: list[LaneModel],
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
        self._texts = TokenTexts(loaded.tokenizer)
        self._end_tokens = end_tokens(loaded.model, loaded.tokenizer)
        self.left_out = left_out
        """A sentence for each variant that there was no memory for."""
        self._model = describe_model(loaded)
        if resume is None:
            prompt = read_prompt(options.prompt, loaded, options.raw)
        else:
            check_same_model(resume.header.model, self._model)
            prompt = recorded_prompt(resume.header, options.prompt, loaded)
        progress("preparing the step (compiled once)", None)
        self._bandwidth = read_bandwidth(loaded.model.device, loaded.model.dtype)
        if options.lens:
            check_lens(lanes[0].group)
        self._lanes = self._make_lanes(lanes, options.context, prompt.record.tokens)
        if left_out:
            built = tuple(str(lane.recipe) for lane in lanes[1:])
            self._options = msgspec.structs.replace(options, variants=built)
        self._recording = Recording(record_to, options.keep)
        self._begin(prompt, options.context, resume)

    # -- what a front end calls ---------------------------------------------------------------

    @property
    def lanes(self) -> PreparedLanes:
        """The lockstep that decodes, with recipe and weights of each lane."""
        return self._lanes

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
        return self._finished_after(self.trace.steps)

    def _finished_after(self, steps: list[records.Step]) -> str | None:
        if steps and all(token is None or token.ended for token in steps[-1].lanes):
            return "every lane has ended"
        return self._full_after(len(steps))

    def _full_after(self, steps: int) -> str | None:
        limit = self.trace.header.model.context_length
        if steps >= self._options.max_new_tokens:
            return f"{steps} new tokens are decoded, as --max-new-tokens allows"
        if limit is not None and len(self.trace.header.prompt.tokens) + steps >= limit:
            return f"the model's context of {limit} tokens is full"
        return None

    def step(self, forced: dict[int, int] | None = None) -> records.Step:
        """Decode one token in every lane; those in `forced` take the token given.

        Raises `UserError` if no step can follow or memory runs out; the trace then stands.
        """
        if why := self.finished:
            raise UserError(f"nothing is left to decode: {why}")
        began = time.perf_counter()
        try:
            step, chosen = self._decode(began, forced or {})
        except BaseException as error:
            # The caches may hold the token already, and the lanes' texts too; the next step reads
            # everything again.
            self._cached = None
            self._read_lane_texts()
            if not out_of_memory(error):
                raise
            log.exception("step %d", len(self.trace.steps))
            raise UserError(
                f"out of memory at step {len(self.trace.steps)}; the steps before it stand, and "
                "a shorter prompt or fewer variants need less"
            ) from error
        self._chosen[self.trace.branch].append(chosen)
        self.trace.append(step)
        self._recording.write(step)
        return step

    def read(self, number: int) -> None:
        """Read a step that stands through the logit lens.

        Raises `UserError` where the model's family has no such lens or memory runs out.
        """
        check_lens(self._lanes.models[0].group)
        try:
            lens = self._lens(self._outputs_again(number), self._running(self.trace.steps[:number]))
        except BaseException as error:
            self._cached = None
            if not out_of_memory(error):
                raise
            raise UserError(f"out of memory while reading the layers at step {number}") from error
        self.trace.set_lens(number, lens)
        self._recording.write(records.Read(step=number, lens=lens))

    def rewind(self, to: int) -> None:
        """Take back all but the first `to` steps."""
        self.trace.rewind(to)
        self._chosen[self.trace.branch] = self._chosen[self.trace.branch][:to]
        self._read_lane_texts()
        self._recording.write(records.Rewind(to=to))

    def force(self, at: int, tokens: dict[int, int]) -> records.Step:
        """Begin a branch with these tokens, by lane, at step `at`; the other lanes choose theirs.

        Raises `UserError` if no step can follow there, a lane had ended by then, or would not read
        what it is given.
        """
        if why := self._finished_after(self.trace.steps[:at]):
            raise UserError(f"nothing can be forced there: {why}")
        if self.trace.header.context == "forced" and 0 not in tokens:
            raise UserError(
                "in a forced context every lane reads the baseline's tokens; force the baseline's"
            )
        running = self._running(self.trace.steps[:at])
        for lane in tokens:
            if not running[lane]:
                raise UserError(
                    f"{self.trace.lane_names[lane]} has ended before step {at}; "
                    "force a token at an earlier step"
                )
        parent = self.trace.branch
        self.trace.fork(at)
        self._chosen.append(self._chosen[parent][:at])
        self._read_lane_texts()
        self._recording.write(records.Branch(parent=parent, at=at))
        return self.step(tokens)

    def switch(self, branch: int) -> None:
        """Go on with another branch; the caches keep what the two share."""
        self.trace.switch(branch)
        self._read_lane_texts()
        self._recording.write(records.Switch(to=branch))

    def restart(self, **changes: Unpack[RestartChanges]) -> None:
        """Decode from the prompt again; changes that differ from before begin a new trace and file.

        Raises `UserError` for a prompt or an answer that cannot be read, where the model has no
        chat template and `raw=False` needs one, or memory runs out; all stays as it was.
        """
        header, before = self.trace.header, self._options
        prompt = changes.get("prompt", header.prompt.text)
        context = changes.get("context", header.context)
        option_changes: dict[str, Any] = {}
        if "sampling" in changes:
            option_changes |= msgspec.structs.asdict(changes["sampling"])
        if "answers" in changes:
            option_changes["answers"] = changes["answers"]
        # Compared with what was done: without a template a prompt is read raw, asked for or not.
        if "raw" in changes and changes["raw"] == header.prompt.chat_template:
            if not changes["raw"] and not self._loaded.tokenizer.chat_template:
                raise UserError("the model brings no chat template; its prompts are read raw")
            option_changes["raw"] = changes["raw"]
        options = msgspec.structs.replace(before, **option_changes)
        if (prompt, context, options) == (header.prompt.text, header.context, before):
            self.rewind(0)
            return
        self._options = options
        try:
            same = (prompt, options.raw) == (header.prompt.text, before.raw)
            # Read again, a prompt may be another: a chat template may write the date.
            read = self._prompt if same else read_prompt(prompt, self._loaded, options.raw)
            self._begin(read, context)
        except BaseException as error:
            self._options = before
            self._lanes.set_context(header.context)
            if not out_of_memory(error):
                raise
            raise UserError(
                f"out of memory in context {context}; the one before goes on, and fewer variants "
                "need less"
            ) from error

    def importance(self) -> Similarity:
        """What the baseline's sublayers and layers do; measured once per model and calibration.

        Raises `UserError` if the family takes no dropping or the text cannot be used.
        """
        check_droppable(self._builder.baseline)
        try:
            self._lanes.remove()
            return self._builder.baseline_similarity()
        except Exception as error:
            if not out_of_memory(error):
                raise
            raise UserError("out of memory while ranking the sublayers") from error
        finally:
            self._lanes.install()

    def set_variants(self, recipes: Iterable[str]) -> None:
        """Decode the prompt again with other variants, in a new trace and file.

        Weights that are made already are used again, and those that no lane reads are freed.
        Raises `UserError` for a recipe that does not parse or apply; all stays as it was.
        """
        parsed = [parse(recipe) for recipe in recipes]
        header, before = self.trace.header, (self._lanes, self._options, self._cached)
        lanes = None
        try:
            self._lanes.remove()
            models, left_out = self._builder.build_lanes(parsed)
            lanes = self._make_lanes(models, header.context, header.prompt.tokens)
            self._lanes = lanes
            self._options = msgspec.structs.replace(
                self._options, variants=tuple(str(lane.recipe) for lane in models[1:])
            )
            self._begin(self._prompt, header.context)
        except BaseException as error:
            if lanes is not None:
                lanes.remove()
            self._lanes, self._options, self._cached = before
            self._builder.forget_all_but(self._lanes.models)
            self._lanes.install()
            if not out_of_memory(error):
                raise
            raise UserError(
                "out of memory with these variants; those before go on, and fewer need less"
            ) from error
        self.left_out = left_out
        self._builder.forget_all_but(models)

    def close(self) -> None:
        """Close the trace's file and leave the model as it was."""
        self.end()
        self._lanes.remove()

    def end(self) -> None:
        """Close the trace's file, in a process that has no more use for the model."""
        self._recording.close()

    # -- one trace ----------------------------------------------------------------------------

    def _begin(self, prompt: ReadPrompt, context: Context, resume: Trace | None = None) -> None:
        if resume is None:
            answers = find_answers(self._options.answers, self._loaded, prompt.text)
        else:
            answers = resume.header.answers
        if self._lanes.set_context(context):
            self._cached = None
        options = msgspec.structs.replace(self._options, prompt=prompt.record.text, context=context)
        header = make_header(
            self._model,
            self._lanes,
            options,
            prompt.record,
            answers,
            prompt.notes,
            self._bandwidth,
        )
        trace = Trace(header)
        if resume is not None:
            check_resumable(resume.header, trace.header)
            for event in resume.events():
                if isinstance(event, records.Step):
                    # Vectors that were kept stay beside the old file.
                    event = msgspec.structs.replace(event, block=None)
                trace.apply(event)
        # Until the new prompt is read, the caches hold neither it nor the old one.
        self._cached = None
        self._first = self._prefill(prompt.record.tokens)
        self._prompt = prompt
        self.trace = trace
        self._wanted = StepRequest(
            len(self._lanes.records),
            self._options.candidates,
            self._tensor(answers.tokens if answers else []),
        )
        self._chosen: list[list[Tensor]] = []
        """What the lanes chose at each step, int64 [lanes], of every branch; branches that share
        a step share its tensor."""
        self._cached: list[Tensor] | None = []
        """What the caches hold behind the prompt; None if that is not known."""
        tensors: dict[int, Tensor] = {}
        for steps in trace.branches:
            self._chosen.append([])
            for step in steps:
                # A lane that has ended reads what it likes.
                tokens = [0 if token is None else token.token for token in step.lanes]
                self._chosen[-1].append(tensors.setdefault(id(step), self._tensor(tokens)))
        self._read_lane_texts()
        self._recording.begin(trace.header)
        for event in trace.events():
            self._recording.write(event)

    def _make_lanes(
        self, models: list[LaneModel], context: Context, prompt: list[int]
    ) -> PreparedLanes:
        return PreparedLanes(
            models, context, prompt, self._progress, compiled=self._options.compile
        )

    def _prefill(self, tokens: list[int]) -> Outputs:
        rows = self._tensor(tokens).repeat(self._lanes.lockstep.row_count, 1)
        what = "compiling the step" if self._options.compile else "reading the prompt"
        self._progress(what, None)
        try:
            outputs = self._lanes.lockstep.prefill(rows, self._options.max_new_tokens)
        except Exception as error:
            if not out_of_memory(error):
                raise
            raise UserError(
                f"out of memory while reading the prompt of {len(tokens)} tokens in "
                f"{len(rows)} lanes; a shorter one or fewer variants need less"
            ) from error
        # Kept for every rewind to the start; h is a view of what the whole prompt has made.
        return Outputs(outputs.h.clone(), outputs.z, outputs.streams)

    def _tensor(self, tokens: list[int]) -> Tensor:
        """int64, where the model reads them."""
        return torch.tensor(tokens, dtype=torch.int64, device=self._loaded.model.device)

    def _read_lane_texts(self) -> None:
        """After the steps have become others."""
        prompt = self.trace.header.prompt.tokens
        self._lane_texts = [LaneText(self._loaded.tokenizer, prompt) for _ in self._lanes.records]
        for step in self.trace.steps:
            for text, token in zip(self._lane_texts, step.lanes, strict=True):
                if token is None or (token.not_numbers and not token.forced):
                    continue
                # With the last token of a session, what was incomplete was shown too.
                if text.add(token.token) != token.text:
                    text.flush()

    # -- one step -----------------------------------------------------------------------------

    @torch.inference_mode()
    def _decode(self, began: float, forced: dict[int, int]) -> tuple[records.Step, Tensor]:
        number = len(self.trace.steps)
        sampling = self.trace.header.sampling
        variants = len(self._lanes.records) - 1
        both = self.trace.header.context == "both"
        answers = self.trace.header.answers
        outputs = self._outputs(number)
        numbers, chosen = step_numbers(
            outputs,
            sampling,
            number,
            self._wanted,
            forced,
        )
        running = self._running(self.trace.steps)
        measured = [running[0] and runs for runs in running[1:]]
        on_baseline = [running[0]] * variants
        same_depth = self._lanes.same_depth[1:]
        first, behind = range(variants + 1), range(variants + 1, 2 * variants + 1)
        lens = self._lens(outputs, running) if self._options.lens else None
        step = records.Step(
            step=number,
            lanes=token_records(
                numbers,
                running,
                self._ends(numbers, running, forced),
                forced,
                self._lane_texts,
                last=self._full_after(number + 1) is not None,
            ),
            candidates=candidate_records(numbers, running, self._texts),
            drift=drift_records(numbers.drift[:variants], measured),
            layers=layer_records(numbers.layers[:variants], measured, same_depth),
            seconds=time.perf_counter() - began,
            # Step 0 chooses from what reading the prompt has left.
            read=self._lanes.weight_bytes + self._lanes.lockstep.cache_bytes if number else 0,
            memory=memory_in_use(self._loaded.model.device),
            local=drift_records(numbers.drift[variants:], on_baseline) if both else None,
            answers=answer_records(numbers, first, running) if answers else None,
            local_answers=answer_records(numbers, behind, on_baseline)
            if answers and both
            else None,
            local_layers=layer_records(numbers.layers[variants:], on_baseline, same_depth)
            if both
            else None,
            block=self._recording.keep(
                {"h": outputs.h, "z": outputs.z}, running + on_baseline * both
            ),
            lens=lens,
        )
        return step, chosen

    @torch.inference_mode()
    def _lens(self, outputs: Outputs, running: list[bool]) -> records.Lens:
        """Of outputs that lanes which run read."""
        lanes = self._lanes.models
        temperature = self.trace.header.sampling.measured_temperature
        rows: list[records.LaneLens | None] = []
        for row in range(self._lanes.lockstep.row_count):
            # Behind the lanes stand the variants on the baseline's tokens.
            local = row >= len(lanes)
            lane = row - len(lanes) + 1 if local else row
            group = lanes[lane].group
            runs = running[0 if local else lane] and self._lanes.same_depth[lane]
            if runs and group.anatomy.takes_lens:
                streams, z = outputs.streams[:, row], outputs.z[row]
                rows.append(read_lens(group, streams, z, temperature, self._texts))
            else:
                rows.append(None)
        return records.Lens(lanes=rows[: len(lanes)], local=rows[len(lanes) :] or None)

    def _outputs(self, number: int) -> Outputs:
        """The outputs that step `number` chooses from, with the caches holding all before it."""
        prompt = self.trace.header.prompt.tokens
        if number == 0:
            return self._first
        chosen = self._chosen[self.trace.branch][:number]
        # The caches keep what they have of these; the last is read for its outputs at any rate.
        cached = self._cached
        kept = _common(cached or [], chosen[:-1])
        # A compiled step's caches know their length on the device only: a crop waits for it.
        stands = cached is not None and (
            kept == len(cached) or self._lanes.lockstep.crop(len(prompt) + kept)
        )
        lockstep = self._lanes.lockstep
        if not stands:
            rows = self._tensor(prompt).repeat(lockstep.row_count, 1)
            lockstep.prefill(rows, self._options.max_new_tokens)
            kept = 0
        *past, last = [self._read(tokens) for tokens in chosen[kept:]]
        # One by one, as they were decoded: several at once would round otherwise, and a step after
        # them would have other last digits, in 16 bits another token.
        for place, tokens in enumerate(past):
            self._progress("reading the steps before", place / len(past))
            lockstep.advance(tokens)
        outputs = lockstep.advance(last)
        self._cached = chosen
        return outputs

    def _outputs_again(self, number: int) -> Outputs:
        """The same of a step that stands; the caches are as before, where they can be."""
        if number == 0:
            return self._first
        chosen = self._chosen[self.trace.branch][:number]
        if self._cached is not None and _common(self._cached, chosen[:-1]) == number - 1:
            behind = len(self.trace.header.prompt.tokens) + number - 1
            outputs = self._lanes.lockstep.advance_from(behind, self._read(chosen[-1]))
            if outputs is not None:
                return outputs
        return self._outputs(number)

    def _read(self, chosen: Tensor) -> Tensor:
        """What each row reads after the lanes chose these: int64 [rows, 1]."""
        context = self.trace.header.context
        if context == "forced":
            chosen = chosen[:1].expand_as(chosen)
        elif context == "both":
            chosen = torch.cat([chosen, chosen[:1].expand(len(chosen) - 1)])
        return chosen[:, None]

    def _running(self, steps: list[records.Step]) -> list[bool]:
        """The lanes that have not ended after these steps."""
        if not steps:
            return [True] * len(self._lanes.records)
        return [token is not None and not token.ended for token in steps[-1].lanes]

    def _ends(
        self, numbers: StepNumbers, running: list[bool], forced: dict[int, int]
    ) -> list[bool]:
        """The lanes that end with their tokens: in a forced context all, when the baseline does."""
        if self._options.ignore_eos:
            return [False] * len(running)
        ends = [
            runs and token in self._end_tokens and (not not_numbers or lane in forced)
            for lane, (runs, token, not_numbers) in enumerate(
                zip(running, numbers.tokens, numbers.not_numbers, strict=True)
            )
        ]
        return [ends[0]] * len(ends) if self.trace.header.context == "forced" else ends


def _common(a: list[Tensor], b: list[Tensor]) -> int:
    """How many of the first tensors are the same objects."""
    pairs = zip(a, b, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] is pair[1], pairs))
