"""Tiny random models of many families, with a tokenizer whose tokens are bytes."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from prunetui.engine.cpu.backend import CPU, backend_for
from prunetui.engine.model.anatomy import Anatomy
from prunetui.engine.model.dropped import Dropped
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

needs_kernels = pytest.mark.skipif(
    backend_for(CPU, torch.float32) is None, reason="no numba, or torch without GNU's OpenMP"
)
"""Mark of tests of what only the compiled CPU path does."""

END = 0
VOCABULARY = 257

_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
_GPT = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 256, "n_inner": 48}
_MOE = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
}

FAMILIES: Mapping[str, Mapping[str, object]] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _LLAMA | {"sliding_window": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": _LLAMA | {"sliding_window": 8, "query_pre_attn_scalar": 8},
    "phi": _LLAMA,
    "phi3": _LLAMA,
    "gpt2": _GPT,
    "gpt_neox": _LLAMA | {"use_parallel_residual": True},
    "gptj": _GPT | {"rotary_dim": 4},
    "falcon": {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
    },
    "opt": _LLAMA | {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {"hidden_size": 32, "n_layer": 4, "n_head": 4},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 4, "max_seq_len": 256, "expansion_ratio": 2},
    "olmo2": _LLAMA,
    "cohere": _LLAMA,
    "granite": _LLAMA | {"residual_multiplier": 0.5},
    "stablelm": _LLAMA,
    "mixtral": _LLAMA | _MOE,
    "qwen2_moe": _LLAMA | _MOE,
    "gpt_oss": _LLAMA | _MOE | {"sliding_window": 8},
    "glm4": _LLAMA,
    "starcoder2": _LLAMA,
    "lfm2": _LLAMA | {"full_attn_idxs": [1, 3], "block_ff_dim": 48},
}


def make_model(family: str, seed: int = 0, **config: Any) -> PreTrainedModel:
    """A random float32 model, with weights large enough for tokens and lanes to differ."""
    torch.manual_seed(seed)
    settings = {"vocab_size": VOCABULARY, "bos_token_id": END, "eos_token_id": END}
    settings |= {"pad_token_id": END, **FAMILIES[family], **config}
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings))
    for name, parameter in made.named_parameters():
        if parameter.dim() > 1 and "embed" not in name:
            torch.nn.init.normal_(parameter, std=0.2)
    made.generation_config.eos_token_id = END
    return made.eval().requires_grad_(False)


def moved(model: PreTrainedModel, to: torch.dtype | str) -> PreTrainedModel:
    """The model itself, cast or moved; `model.to` has lost its type to a decorator."""
    nn.Module.to(model, to)
    return model


def generate(model: PreTrainedModel, tokens: Tensor, **settings: Any) -> Any:
    """Result of transformers' own `generate` for tokens, [1, length]."""
    # Its type there is a mixin of no common class.
    stock: Any = model
    return stock.generate(tokens, attention_mask=torch.ones_like(tokens), **settings)


def greedy_tokens(model: PreTrainedModel, tokens: Tensor, count: int) -> list[int]:
    """New tokens of transformers' own greedy `generate`, which no end token stops."""
    settings = {"do_sample": False, "min_new_tokens": count, "max_new_tokens": count}
    out = generate(model, tokens, **settings, eos_token_id=None, pad_token_id=END)
    return out[0, tokens.shape[1] :].tolist()


def make_tokenizer(chat_template: str | dict[str, str] | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes: token 0 is the end, token b + 1 the byte b in ByteLevel's order."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<end>": END} | {character: i + 1 for i, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", chat_template=chat_template
    )


WORDS = ["▁A", "▁B", "▁C", "▁D", *sorted("▁aAbBcCdDefghilmnoprstwxyPQ.,:?!")]


def make_spm_tokenizer(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer like Llama 2's: it sets a space before every text, and falls back to bytes.

    Token 2 is the end, token b + 3 a byte; `WORDS` follow.
    """
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    vocabulary = {piece: token for token, piece in enumerate(pieces)}
    merges = [("▁", letter) for letter in "ABCD"]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=chat_template,
    )


def make_speaker(first: int, script: list[int], vocabulary: int) -> PreTrainedModel:
    """A model that says `script`, token by token, from its position `first` on."""
    size = 64
    model = make_model(
        "gpt2", vocab_size=vocabulary, n_embd=size, n_positions=size, tie_word_embeddings=False
    )
    # A position's embedding is one-hot, and the head turns it into the token.
    for parameter in model.parameters():
        parameter.zero_()
    model.get_parameter("transformer.wpe.weight").copy_(torch.eye(size))
    model.get_parameter("transformer.ln_f.weight").fill_(1)
    head = model.get_parameter("lm_head.weight")
    for position, token in enumerate(script, start=first):
        head[token, position] = 1.0
    return model


def save_model_directory(directory: Path, family: str = "llama", **config: Any) -> Path:
    make_model(family, **config).save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    return directory


def changed(
    directory: Path,
    name: str,
    rename: Callable[[str], str | None] = str,
    change: Callable[[str, Tensor], Tensor] = lambda _, tensor: tensor,
    **config: object,
) -> Path:
    """A copy of a model's directory with other weights, other names (None: left out) or config."""
    copy = directory.with_name(name)
    shutil.copytree(directory, copy)
    weights = load_file(copy / "model.safetensors")
    renamed = {
        new: change(key, tensor).contiguous()
        for key, tensor in weights.items()
        if (new := rename(key)) is not None
    }
    save_file(renamed, copy / "model.safetensors", {"format": "pt"})
    said = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(said | config))
    return copy


OUTPUT_PROJECTIONS = {
    "llama": ("self_attn.o_proj", "mlp.down_proj"),
    "qwen2": ("self_attn.o_proj", "mlp.down_proj"),
    "gemma3_text": ("self_attn.o_proj", "mlp.down_proj"),
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
    "opt": ("self_attn.out_proj", "fc2"),
}
"""Output projections of attention and MLP by family; zeroed, they drop the sublayer."""


def zero_output(model: PreTrainedModel, layer: int, kind: str) -> None:
    """Drop a sublayer from a stock model by its weights alone."""
    names = OUTPUT_PROJECTIONS[model.config.model_type]
    name = f"{layer}.{names[0 if kind == 'attn' else 1]}"
    (module,) = [m for path, m in model.named_modules() if path.endswith(f".{name}")]
    for parameter in module.parameters():
        parameter.data.zero_()


@contextmanager
def without_sublayers(anatomy: Anatomy, gates: Dropped) -> Iterator[None]:
    """Replace the forward of dropped sublayers by one that adds nothing."""
    modules = anatomy.sublayers(gates)
    originals = [module.forward for module in modules]

    def nothing(module: nn.Module, original):
        def forward(*args, **kwargs):
            output = original(*args, **kwargs)
            family = type(module).__name__
            if family in {"BloomAttention", "BloomMLP", "MptMLP"}:
                kept = args[1]
            else:
                kept = torch.zeros_like(output[0] if isinstance(output, tuple) else output)
            return (kept, *output[1:]) if isinstance(output, tuple) else kept

        return forward

    for module, original in zip(modules, originals, strict=True):
        module.forward = nothing(module, original)
    try:
        yield
    finally:
        for module, original in zip(modules, originals, strict=True):
            module.forward = original
