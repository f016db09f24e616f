"""A tiny Llama as a GGUF file, whole or in parts."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

HIDDEN, INNER, LAYERS, HEADS, KEY_HEADS = 32, 64, 4, 4, 2
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
# GPT-2's byte alphabet, an end, and a merge, as the format asks for one.
TOKENS = ["<end>", *map(chr, _PRINTABLE), *(chr(0x100 + n) for n in range(256 - len(_PRINTABLE)))]
TOKENS += ["th"]
TENSORS = 3 + 9 * LAYERS


def write_gguf(
    file: Path, keep: Callable[[str], bool] = lambda _: True, shard: tuple[int, int] | None = None
) -> Path:
    """Write a GGUF file with the tensors that `keep` selects, as shard (number, count) if given."""
    out = GGUFWriter(str(file), "llama")
    out.add_block_count(LAYERS)
    out.add_context_length(512)
    out.add_embedding_length(HIDDEN)
    out.add_feed_forward_length(INNER)
    out.add_head_count(HEADS)
    out.add_head_count_kv(KEY_HEADS)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(HIDDEN // HEADS)
    out.add_vocab_size(len(TOKENS))
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("llama-bpe")
    out.add_token_list(TOKENS)
    out.add_token_types([TokenType.CONTROL] + [TokenType.NORMAL] * (len(TOKENS) - 1))
    out.add_token_merges(["t h"])
    out.add_eos_token_id(0)
    out.add_bos_token_id(0)
    out.add_add_bos_token(False)
    if shard:
        out.add_uint16("split.no", shard[0])
        out.add_uint16("split.count", shard[1])
        out.add_int32("split.tensors.count", TENSORS)
    for name, tensor in _tensors():
        if keep(name):
            out.add_tensor(name, tensor)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return file


def _tensors() -> Iterator[tuple[str, np.ndarray]]:
    noise = np.random.default_rng(0)

    def matrix(*shape: int) -> np.ndarray:
        return (noise.standard_normal(shape) * 0.2).astype(np.float32)

    yield "token_embd.weight", matrix(len(TOKENS), HIDDEN)
    for number in range(LAYERS):
        block = f"blk.{number}"
        yield f"{block}.attn_norm.weight", np.ones(HIDDEN, np.float32)
        yield f"{block}.attn_q.weight", matrix(HIDDEN, HIDDEN)
        yield f"{block}.attn_k.weight", matrix(HIDDEN * KEY_HEADS // HEADS, HIDDEN)
        yield f"{block}.attn_v.weight", matrix(HIDDEN * KEY_HEADS // HEADS, HIDDEN)
        yield f"{block}.attn_output.weight", matrix(HIDDEN, HIDDEN)
        yield f"{block}.ffn_norm.weight", np.ones(HIDDEN, np.float32)
        yield f"{block}.ffn_gate.weight", matrix(INNER, HIDDEN)
        yield f"{block}.ffn_up.weight", matrix(INNER, HIDDEN)
        yield f"{block}.ffn_down.weight", matrix(HIDDEN, INNER)
    yield "output_norm.weight", np.ones(HIDDEN, np.float32)
    yield "output.weight", matrix(len(TOKENS), HIDDEN)
