"""From the outputs before a step to its record in the trace."""

import time
from collections.abc import Callable, Sequence

import msgspec
import torch
from torch import Tensor

from ..decode.prepared_lanes import PreparedLanes
from ..measure.logit_lens import read_lens
from ..measure.step_numbers import step_numbers
from ..measure.step_record import (
    answer_records,
    candidate_records,
    drift_records,
    layer_records,
    token_records,
)
from ..measure.step_reduction import StepReduction, StepRequest
from ..model.detokenize import LaneText, TokenTexts
from ..model.device import devices_in_use
from ..model.generation import end_tokens
from ..model.loading import Loaded
from ..model.memory import memory_in_use
from ..model.outputs import Outputs
from ..model.weight_group import WeightGroup
from ..trace import records
from ..trace.trace import Trace
from .ends import ending_lanes, running_lanes, why_full
from .recording import Recording


class StepBuilder:
    """Builds the records of a trace's steps: numbers, texts, ends and the logit lens."""

    def __init__(
        self,
        loaded: Loaded,
        lanes: PreparedLanes,
        trace: Trace,
        recording: Recording,
        *,
        candidates: int,
        with_lens: bool,
    ) -> None:
        """`candidates` is the number of top tokens per lane; `with_lens` reads every step through
        the logit lens."""
        self._loaded = loaded
        self._lanes = lanes
        self._trace = trace
        self._recording = recording
        self._with_lens = with_lens
        self.token_texts = TokenTexts(loaded.tokenizer)
        """Texts of single tokens."""
        self._end_tokens = end_tokens(loaded.model, loaded.tokenizer)
        answers = trace.header.answers
        tokens = torch.tensor(answers.tokens if answers else [], dtype=torch.int64)
        self._request = StepRequest(len(lanes.records), candidates, tokens)
        self._reduction = StepReduction(
            trace.header.sampling, self._request, lanes.models[0].group.model.device
        )
        self._devices = devices_in_use({lane.group.model for lane in lanes.models})
        self.read_texts()

    def read_texts(self) -> None:
        """Rebuild the lanes' texts from the trace's steps, after a rewind, a switch or an error."""
        self._lane_texts = self._new_texts()
        for step in self._trace.steps:
            for text, token in zip(self._lane_texts, step.lanes, strict=True):
                if token is None or (token.not_numbers and not token.forced):
                    continue
                # The last token of a session was shown with what was incomplete.
                if text.add(token.token) != token.text:
                    text.flush()

    @property
    def reduction(self) -> StepReduction:
        """What is made of a step's outputs on their device."""
        return self._reduction

    @property
    def keeps_outputs(self) -> bool:
        """Whether more is read of a step's outputs than the reduction."""
        return self._with_lens or bool(self._recording.spaces)

    @torch.inference_mode()
    def build(
        self,
        outputs: Outputs,
        forced: dict[int, int],
        began: float,
        on_choice: Callable[[Tensor], None] = lambda _: None,
    ) -> tuple[records.Step, Tensor]:
        """Build the next step; return it and the chosen tokens, int64 [lanes].

        `forced` gives lanes their token; `began` is the `perf_counter()` at which the step began.
        `on_choice` gets the chosen tokens before the host waits for the step's numbers.
        """
        steps = self._trace.steps
        step, chosen = self._step(outputs, steps, self._lane_texts, forced, on_choice)
        running = running_lanes(steps, len(self._lanes.records))
        both = self._trace.header.context == "both"
        lens = self.lens(outputs, running) if self._with_lens else None
        measured_locally = [running[0]] * (len(running) - 1)
        step = msgspec.structs.replace(
            step,
            # What was read ahead took longer than this step had to wait for it.
            seconds=max(time.perf_counter() - began, outputs.device_seconds()),
            block=self._recording.keep(
                {"h": outputs.h, "z": outputs.z}, running + measured_locally * both
            ),
            lens=lens,
        )
        return step, chosen

    @torch.inference_mode()
    def preview(self, outputs: Outputs) -> records.Step:
        """Build step 0 as it would be decoded now, from the outputs of the prompt.

        It is not recorded: it has no lens, no vectors and no seconds.
        """
        return self._step(outputs, [], self._new_texts(), {})[0]

    def _new_texts(self) -> list[LaneText]:
        prompt = self._trace.header.prompt.tokens
        return [LaneText(self._loaded.tokenizer, prompt) for _ in self._lanes.records]

    def _step(
        self,
        outputs: Outputs,
        steps: Sequence[records.Step],
        texts: list[LaneText],
        forced: dict[int, int],
        on_choice: Callable[[Tensor], None] = lambda _: None,
    ) -> tuple[records.Step, Tensor]:
        """Build the step after `steps`, whose lanes have `texts`; return it and the chosen tokens,
        int64 [lanes]."""
        header, lanes = self._trace.header, self._lanes
        number, variant_count = len(steps), len(lanes.records) - 1
        vocabulary = outputs.z.shape[-1]
        reduced = outputs.reduced
        if reduced is None or forced:
            self._reduction.draw_noise(number, vocabulary)
            reduced = self._reduction(outputs, forced)
        # Step 0 chooses from the outputs of the prompt.
        read = lanes.weight_bytes + lanes.lockstep.cache_bytes if number else 0
        # The next static step overwrites it.
        fetched, chosen = reduced.fetch(), reduced.chosen.clone()
        on_choice(chosen)
        temperature = header.sampling.measured_temperature
        numbers = step_numbers(fetched(), self._request, vocabulary, temperature)
        running = running_lanes(steps, variant_count + 1)
        ended = ending_lanes(header, numbers, running, forced, self._end_tokens)
        measured = [running[0] and runs for runs in running[1:]]
        measured_locally = [running[0]] * variant_count
        same_depth = lanes.same_depth[1:]
        lane_rows = range(variant_count + 1)
        local_rows = range(variant_count + 1, 2 * variant_count + 1)
        both, answers = header.context == "both", header.answers
        step = records.Step(
            step=number,
            lanes=token_records(
                numbers,
                running,
                ended,
                forced,
                texts,
                last=why_full(header, number + 1) is not None,
            ),
            candidates=candidate_records(numbers, running, self.token_texts),
            drift=drift_records(numbers.drift[:variant_count], measured),
            layers=layer_records(numbers.layers[:variant_count], measured, same_depth),
            seconds=0.0,
            read=read,
            memory=memory_in_use(self._devices),
            local=drift_records(numbers.drift[variant_count:], measured_locally) if both else None,
            local_layers=layer_records(numbers.layers[variant_count:], measured_locally, same_depth)
            if both
            else None,
            answers=answer_records(numbers, lane_rows, running) if answers else None,
            local_answers=answer_records(numbers, local_rows, measured_locally)
            if answers and both
            else None,
        )
        return step, chosen

    @torch.inference_mode()
    def lens(
        self,
        outputs: Outputs,
        running: list[bool],
        report: Callable[[float], None] = lambda _: None,
    ) -> records.Lens:
        """Read outputs through the logit lens, in the rows whose lane runs.

        `report` gets the fraction of the rows that is read.
        """
        models = self._lanes.models
        row_count = self._lanes.lockstep.row_count
        rows: dict[WeightGroup, list[int]] = {}
        for row in range(row_count):
            # After the lanes' rows come those of the variants on the baseline's tokens.
            local = row >= len(models)
            lane = row - len(models) + 1 if local else row
            group = models[lane].group
            runs = running[0 if local else lane] and self._lanes.same_depth[lane]
            if runs and group.anatomy.takes_lens:
                rows.setdefault(group, []).append(row)
        temperature = self._trace.header.sampling.measured_temperature
        by_row = read_lens(rows, outputs, temperature, self.token_texts, report)
        lenses = [by_row.get(row) for row in range(row_count)]
        return records.Lens(lanes=lenses[: len(models)], local=lenses[len(models) :] or None)
