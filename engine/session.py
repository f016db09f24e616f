"""A session: a lockstep decoder with a trace, which is all that a front end drives."""

import datetime
import importlib.metadata
import logging
import time
from pathlib import Path

import msgspec
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .anatomy import Anatomy, find_anatomy
from .cache import cached
from .calibration import calibration_text, token_windows
from .detokenize import LaneText, TokenTexts
from .drift import Distributions, finite, measure, stream_cosines
from .errors import UserError, reason
from .loading import Loaded, Progress, load
from .lockstep import LaneGates, Lockstep, Outputs
from .memory import memory_in_use
from .options import Context, Options
from .pruning.importance import Similarity, sublayer_similarity
from .recipes import Recipe, parse
from .sampling import choose
from .trace import records
from .trace.log import SUFFIX, TraceWriter
from .trace.trace import Trace
from .variants import drop_gates

log = logging.getLogger(__name__)


def open_session(options: Options, record_to: Path | None, progress: Progress) -> "Session":
    """Load the model, apply the recipes, read the prompt; record to a new file if one is named.

    Raises `UserError` for anything that the options got wrong.
    """
    recipes = [parse(text) for text in options.variants]
    progress("importing torch and transformers", 1.0)
    loaded = load(options, progress)
    progress("checking the anatomy", None)
    anatomy = find_anatomy(loaded.model)
    if recipes and not anatomy.droppable:
        raise UserError(
            f"{loaded.name} ({loaded.model.config.model_type}) does not take layer dropping: with "
            "a layer's attention and MLP closed, its output is not its input"
        )

    def similarity() -> Similarity:
        return _cached_similarity(loaded, anatomy, options.calibration, progress)

    gates = [drop_gates(recipe, len(anatomy.layers), similarity) for recipe in recipes]
    return Session(loaded, anatomy, recipes, gates, options, record_to, progress)


def _cached_similarity(
    loaded: Loaded, anatomy: Anatomy, file: str | None, progress: Progress
) -> Similarity:
    text = calibration_text(file)

    def make(directory: Path) -> None:
        windows = token_windows(text, loaded.tokenizer)
        result = sublayer_similarity(
            loaded.model, anatomy, windows, lambda done: progress("ranking the sublayers", done)
        )
        (directory / "similarity.json").write_bytes(msgspec.json.encode(result))

    place = cached("similarity", [loaded.fingerprint, text, "sublayer"], make)
    return msgspec.json.decode((place / "similarity.json").read_bytes(), type=Similarity)


class Session:
    """Decodes the baseline and its variants in lockstep and appends each step to `trace`.

    `recording` is the file being written, if any. Once writing to it fails, `recording_error`
    says why and decoding goes on unrecorded.
    """

    def __init__(
        self,
        loaded: Loaded,
        anatomy: Anatomy,
        recipes: list[Recipe],
        gates: list[LaneGates],
        options: Options,
        record_to: Path | None,
        progress: Progress,
    ) -> None:
        self._loaded = loaded
        self._options = options
        self._progress = progress
        self._texts = TokenTexts(loaded.tokenizer)
        self._end_tokens = _end_tokens(loaded.model, loaded.tokenizer)
        lanes = [LaneGates(), *gates]
        self._lane_records = [
            records.Lane(
                name="baseline" if recipe is None else str(recipe),
                recipe=None if recipe is None else str(recipe),
                dropped_attention=sorted(lane.attention),
                dropped_mlp=sorted(lane.mlp),
            )
            for recipe, lane in zip([None, *recipes], lanes, strict=True)
        ]
        self._lockstep = Lockstep(loaded.model, anatomy, lanes)
        self._record_to = record_to
        self._writer: TraceWriter | None = None
        self.recording: Path | None = None
        self.recording_error: str | None = None
        self._begin(options.prompt, options.context)

    # -- what a front end calls ---------------------------------------------------------------

    @property
    def finished(self) -> str | None:
        """Why no step can follow; None while one can."""
        steps = self.trace.steps
        limit = self.trace.header.model.context_length
        if steps and all(token is None or token.ended for token in steps[-1].lanes):
            return "every lane has ended"
        if len(steps) >= self._options.max_new_tokens:
            return f"{len(steps)} new tokens are decoded, as --max-new-tokens allows"
        if limit is not None and len(self.trace.header.prompt.tokens) + len(steps) >= limit:
            return f"the model's context of {limit} tokens is full"
        return None

    def step(self) -> records.Step:
        """Decode one token in every lane.

        Raises `UserError` if no step can follow or memory runs out; the trace then stands.
        """
        if why := self.finished:
            raise UserError(f"nothing is left to decode: {why}")
        began = time.perf_counter()
        try:
            step, chosen = self._decode(began)
        except (torch.OutOfMemoryError, MemoryError) as error:
            log.exception("step %d", len(self.trace.steps))
            self._stale = True
            raise UserError(
                f"out of memory at step {len(self.trace.steps)}; the steps before it stand, and "
                "a shorter prompt or fewer variants need less"
            ) from error
        self._chosen.append(chosen)
        self.trace.append(step)
        self._record(step)
        return step

    def rewind(self, to: int) -> None:
        """Take back all but the first `to` steps."""
        self.trace.rewind(to)
        self._chosen = self._chosen[:to]
        self._lane_texts = self._new_lane_texts()
        for step in self.trace.steps:
            for text, token in zip(self._lane_texts, step.lanes, strict=True):
                if token is not None:
                    text.add(token.token)
        self._record(records.Rewind(to=to))

    def restart(self, prompt: str | None = None, context: Context | None = None) -> None:
        """Decode from the prompt again; another prompt or context begins a new trace and file.

        Raises `UserError` for a prompt that cannot be read; all stays as it was.
        """
        header = self.trace.header
        prompt = header.prompt.text if prompt is None else prompt
        context = context or header.context
        if (prompt, context) == (header.prompt.text, header.context):
            self.rewind(0)
        else:
            self._begin(prompt, context)

    def close(self) -> None:
        """Close the trace's file and leave the model as it was."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._lockstep.close()

    # -- one trace ----------------------------------------------------------------------------

    def _begin(self, prompt: str, context: Context) -> None:
        tokens, templated = self._prompt_tokens(prompt)
        trace = Trace(self._header(prompt, tokens, templated, context))
        self._progress("reading the prompt", None)
        self._first = self._prefill(tokens)
        self.trace = trace
        self._chosen: list[Tensor] = []
        self._stale = False
        self._lane_texts = self._new_lane_texts()
        self._open_recording()

    def _prompt_tokens(self, prompt: str) -> tuple[list[int], bool]:
        """The tokens and whether a chat template was used."""
        if not prompt.strip():
            raise UserError("the prompt is empty; write something for the lanes to go on from")
        tokenizer = self._loaded.tokenizer
        templated = bool(tokenizer.chat_template) and not self._options.raw
        if templated:
            messages = [{"role": "user", "content": prompt}]
            encoded = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=True
            )
        else:
            encoded = tokenizer(prompt, verbose=False)
        tokens = list(encoded["input_ids"])
        if not tokens:
            raise UserError("the tokenizer makes no token of this prompt; write another")
        limit = _context_length(self._loaded.model)
        if limit is not None and len(tokens) >= limit:
            raise UserError(
                f"the prompt has {len(tokens)} tokens and the model's context {limit}; shorten it"
            )
        return tokens, templated

    def _prefill(self, tokens: list[int]) -> Outputs:
        rows = torch.tensor(tokens).repeat(len(self._lane_records), 1)
        try:
            outputs = self._lockstep.prefill(rows)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise UserError(
                f"out of memory while reading the prompt of {len(tokens)} tokens in "
                f"{len(self._lane_records)} lanes; a shorter one or fewer variants need less"
            ) from error
        # Kept for every rewind to the start, while the decoder reuses its own.
        return Outputs(outputs.h.clone(), outputs.z.clone(), outputs.streams.clone())

    def _new_lane_texts(self) -> list[LaneText]:
        prompt = self.trace.header.prompt.tokens
        return [LaneText(self._loaded.tokenizer, prompt) for _ in self._lane_records]

    def _header(
        self, prompt: str, tokens: list[int], templated: bool, context: Context
    ) -> records.Header:
        model, options = self._loaded.model, self._options
        config = model.config.get_text_config()
        return records.Header(
            version=records.VERSION,
            model=records.Model(
                name=self._loaded.name,
                family=model.config.model_type,
                layers=config.num_hidden_layers,
                hidden_size=config.hidden_size,
                vocab_size=config.vocab_size,
                parameters=sum(parameter.numel() for parameter in model.parameters()),
                dtype=str(model.dtype).removeprefix("torch."),
                device=str(model.device),
                context_length=_context_length(model),
            ),
            lanes=self._lane_records,
            prompt=records.Prompt(text=prompt, chat_template=templated, tokens=tokens),
            sampling=records.Sampling(
                temperature=options.temperature,
                top_k=options.top_k,
                top_p=options.top_p,
                seed=options.seed,
                max_new_tokens=options.max_new_tokens,
                ignore_eos=options.ignore_eos,
            ),
            context=context,
            versions={
                package: importlib.metadata.version(package)
                for package in ("prunetui", "torch", "transformers")
            },
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )

    # -- one step -----------------------------------------------------------------------------

    @torch.inference_mode()
    def _decode(self, began: float) -> tuple[records.Step, Tensor]:
        number = len(self.trace.steps)
        header = self.trace.header
        outputs = self._outputs(number)
        lanes = Distributions.of(outputs.z, header.sampling.measured_temperature)
        chosen = choose(outputs.z.float(), header.sampling, number)
        top = lanes.p.topk(min(self._options.candidates, lanes.p.shape[-1]), dim=-1).indices
        # All of a step's numbers in one transfer; float64 holds a token id exactly.
        drift = measure(outputs.h, lanes)
        drift["dp"] = lanes.p[1:, chosen[0]] - lanes.p[0, chosen[0]]
        values = [
            chosen.double(),
            lanes.logprob(chosen),
            lanes.entropy,
            top.double(),
            lanes.p[:, top.flatten()],
            torch.stack([*drift.values()]),
            stream_cosines(outputs.streams),
        ]
        flat = torch.cat([value.flatten() for value in values]).cpu()
        parts = [
            part.view(value.shape)
            for part, value in zip(
                flat.split([value.numel() for value in values]), values, strict=True
            )
        ]
        tokens, logprobs, entropies, top, probs, measures, cosines = (p.tolist() for p in parts)
        running = self._running()
        ended = self._ends([int(token) for token in tokens], running)
        step = records.Step(
            step=number,
            lanes=[
                records.Token(
                    token=int(token),
                    text=self._lane_texts[lane].add(int(token)),
                    prob=finite(parts[1][lane].exp().item()),
                    logprob=finite(logprob),
                    entropy=finite(entropy),
                    ended=ended[lane],
                )
                if running[lane]
                else None
                for lane, (token, logprob, entropy) in enumerate(
                    zip(tokens, logprobs, entropies, strict=True)
                )
            ],
            candidates=self._candidates(top, probs, running),
            drift=[
                records.Drift(
                    top1=bool(values.pop("top1")), **{k: finite(v) for k, v in values.items()}
                )
                if running[0] and running[lane]
                else None
                for lane, values in enumerate(
                    (dict(zip(drift, row, strict=True)) for row in zip(*measures, strict=True)),
                    start=1,
                )
            ],
            layers=[
                [finite(cosine) for cosine in row] if running[0] and running[lane] else None
                for lane, row in enumerate(zip(*cosines, strict=True), start=1)
            ],
            seconds=time.perf_counter() - began,
            memory=memory_in_use(self._loaded.model.device),
        )
        return step, chosen

    def _outputs(self, number: int) -> Outputs:
        """The outputs that step `number` chooses from, with the caches holding all before it."""
        prompt = self.trace.header.prompt.tokens
        if number == 0:
            return self._first
        # What the caches must hold before the last chosen tokens are read; more after a rewind.
        length = len(prompt) + number - 1
        if self._stale or not self._lockstep.crop(length):
            past = [self._read(chosen) for chosen in self._chosen[: number - 1]]
            rows = torch.tensor(prompt).repeat(len(self._lane_records), 1)
            self._lockstep.prefill(torch.cat([rows, *past], dim=1))
            self._stale = False
        return self._lockstep.advance(self._read(self._chosen[number - 1]))

    def _read(self, chosen: Tensor) -> Tensor:
        """What each lane reads after these were chosen: int64 [lanes, 1]."""
        if self.trace.header.context == "forced":
            chosen = chosen[:1].expand_as(chosen)
        return chosen[:, None].cpu()

    def _running(self) -> list[bool]:
        """The lanes that have not ended."""
        if not self.trace.steps:
            return [True] * len(self._lane_records)
        return [token is not None and not token.ended for token in self.trace.steps[-1].lanes]

    def _ends(self, tokens: list[int], running: list[bool]) -> list[bool]:
        """The lanes that end with these tokens: in a forced context all, when the baseline does."""
        if self._options.ignore_eos:
            return [False] * len(tokens)
        if self.trace.header.context == "forced":
            return [tokens[0] in self._end_tokens] * len(tokens)
        return [
            is_running and token in self._end_tokens
            for token, is_running in zip(tokens, running, strict=True)
        ]

    def _candidates(
        self, top: list[list[float]], probs: list[list[float]], running: list[bool]
    ) -> records.Candidates:
        """Of the running lanes' top tokens each once, most probable in the baseline first."""
        place = {}
        flat = [token for lane in top for token in lane]
        for number, token in enumerate(flat):
            if running[number // len(top[0])]:
                place.setdefault(int(token), number)
        order = sorted(place, key=lambda token: -probs[0][place[token]])
        return records.Candidates(
            tokens=order,
            texts=[self._texts[token] for token in order],
            probs=[
                [finite(lane_probs[place[token]]) for token in order] if runs else None
                for lane_probs, runs in zip(probs, running, strict=True)
            ],
        )

    # -- the file -----------------------------------------------------------------------------

    def _open_recording(self) -> None:
        """Begin the next file: the one that was named, then FILE-2, FILE-3, …"""
        if self._record_to is None:
            return
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self.recording = None
        path, number = self._record_to, 1
        try:
            while path.exists():
                number += 1
                name = self._record_to.name
                stem = name.removesuffix(SUFFIX)
                path = self._record_to.with_name(f"{stem}-{number}{name[len(stem) :]}")
            self._writer = TraceWriter(path, self.trace.header)
            self.recording = path
            self.recording_error = None
        except OSError as error:
            self._give_up_recording(path, error)

    def _record(self, event: records.Event) -> None:
        if self._writer is None:
            return
        try:
            self._writer.write(event)
        except OSError as error:
            self._give_up_recording(self._writer.path, error)

    def _give_up_recording(self, path: Path, error: OSError) -> None:
        log.error("recording to %s", path, exc_info=error)
        self.recording_error = f"not recorded: cannot write {path} ({reason(error)})"
        self.recording = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """What the model's generation config and the tokenizer call an end."""
    configured = model.generation_config.eos_token_id if model.generation_config else None
    tokens = configured if isinstance(configured, list) else [configured]
    return {token for token in [*tokens, tokenizer.eos_token_id] if token is not None}


def _context_length(model: PreTrainedModel) -> int | None:
    config = model.config.get_text_config()
    names = ("max_position_embeddings", "max_seq_len")
    return next((length for name in names if (length := getattr(config, name, None))), None)
