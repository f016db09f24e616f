"""Random models of the shapes that users decode, made on the device and opened as sessions."""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.checkpoint_files import CheckpointFiles
from prunetui.engine.model.fused_weights import fuse_weights
from prunetui.engine.model.loading import Loaded
from prunetui.engine.model.reference import PROMPT as REFERENCE_PROMPT
from prunetui.engine.model.reference import take_reference
from prunetui.engine.options import POSTER_QUESTION, Options
from prunetui.engine.session.session import Session
from prunetui.engine.variants.builder import LaneModel, VariantBuilder
from prunetui.engine.variants.recipes import parse
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedModel

from ..support.models import make_tokenizer
from ..support.real_shapes import REAL_SHAPES


@dataclass(frozen=True)
class Shape:
    """A model's config, and where and in which dtype its random weights are made."""

    name: str
    config: PretrainedConfig
    dtype: torch.dtype = torch.bfloat16
    device: str = "cuda"
    prompt_length: int = 500
    """Tokens of the prompt."""

    @property
    def prompt(self) -> str:
        """A text of so many bytes, each of which is a token of its own."""
        return (POSTER_QUESTION * (self.prompt_length // len(POSTER_QUESTION) + 1))[
            : self.prompt_length
        ]

    def prompt_tokens(self) -> torch.Tensor:
        """The prompt's tokens on the device, int64 [1, positions]."""
        return torch.tensor([make_tokenizer()(self.prompt)["input_ids"]], device=self.device)

    def make(self) -> PreTrainedModel:
        """A model of random weights, made on the device; the same ones every time."""
        # As loading does.
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.manual_seed(0)
        config = copy.deepcopy(self.config)
        with torch.device(self.device):
            model = AutoModelForCausalLM.from_config(config, dtype=self.dtype)
        # An end token would add a look at every logit to each step of `generate`.
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        return model.eval().requires_grad_(False)


SEVEN, EIGHT, ONE = (
    Shape(name, REAL_SHAPES[name]) for name in ("Mistral-7B-v0.3", "Llama-3.1-8B", "Llama-3.2-1B")
)
TINY = Shape(
    "tiny",
    LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=512,
        max_position_embeddings=2048,
    ),
    # The compiled CPU path does not take it: torch's operations decode, as on a GPU.
    dtype=torch.float16,
    device="cpu",
    prompt_length=24,
)
"""For tests of the benchmark itself, on a CPU."""

SHAPES = {shape.name: shape for shape in (SEVEN, EIGHT, ONE, TINY)}


def recipes(rows: int, depth: int) -> tuple[str, ...]:
    """Recipes of all rows but the baseline's: a control first, then one gate each."""
    kinds = ("attn", "mlp")
    drops = [f"drop:{kinds[i % 2]}=[{1 + i // 2 % (depth - 1)}]" for i in range(rows - 2)]
    return ("control", *drops)[: rows - 1]


class Lanes:
    """The lanes of a shape: one model, its gates, and sessions over both, one after another."""

    def __init__(self, shape: Shape, rows: int) -> None:
        """Make the model as loading does, with its reference logits by stock transformers."""
        self.model = model = shape.make()
        tokens = shape.prompt_tokens()[0, :REFERENCE_PROMPT].tolist()
        loaded = Loaded(
            model=model,
            tokenizer=make_tokenizer(),
            name=shape.name,
            source="",
            fingerprint=shape.name,
            files=CheckpointFiles(Path(), {}, {}),
            reference=take_reference(model, tokens),
        )
        fuse_weights(model)
        self._options = Options(
            variants=recipes(rows, model.config.num_hidden_layers),
            prompt=shape.prompt,
            raw=True,
            context="free",
            device=shape.device,
            ignore_eos=True,
        )
        self._builder = VariantBuilder(loaded, find_anatomy(model), self._options, _silent)
        self._models: list[LaneModel] = self._builder.build_lanes(
            [parse(recipe) for recipe in self._options.variants or ()]
        )[0]

    @contextlib.contextmanager
    def session(
        self, steps: int, record_to: Path | None = None, **options: Any
    ) -> Iterator[Session]:
        """A session that can decode so many steps, closed afterwards."""
        changed = msgspec.structs.replace(self._options, max_new_tokens=steps, **options)
        opened = Session(self._builder, self._models, [], changed, record_to, _silent)
        try:
            yield opened
        finally:
            opened.close()


def _silent(_what: str, _done: float | None) -> None:
    pass
