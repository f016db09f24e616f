"""Every family that transformers has a causal language model of, as a tiny random model."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from .models import END, VOCABULARY

FAMILIES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)

WINDOW = 8
"""Size of sliding windows and chunks, in positions."""

SMALL: dict[str, object] = {
    "vocab_size": VOCABULARY,
    "bos_token_id": END,
    "eos_token_id": END,
    "pad_token_id": END,
    "max_position_embeddings": 256,
    "n_positions": 256,
    "max_seq_len": 256,
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "embedding_size": 32,
    "num_hidden_layers": 4,
    "n_layer": 4,
    "n_layers": 4,
    "num_layers": 4,
    "encoder_layers": 4,
    "decoder_layers": 4,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "global_head_dim": 8,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "ffn_hidden_size": 48,
    "sliding_window": WINDOW,
    "attention_chunk_size": WINDOW,
    "sliding_window_pattern": 2,
    "_sliding_window_pattern": 2,
    "full_attention_interval": 2,
    "layer_group_size": 2,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "local_attention": 2 * WINDOW,
    "is_decoder": True,
    "query_pre_attn_scalar": 8,
    "logit_scale": 1.0,
    "logits_mup_width_multiplier": 1.0,
    # Towers that see and hear.
    "image_size": 28,
    "patch_size": 14,
    "depth": 4,
    "mlp_dim": 48,
    # Mixtures of experts.
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_topk": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "shared_experts_intermediate_size": 24,
    "shared_intermediate_size": 24,
    "expert_ffn_hidden_size": 24,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "moe_num_shared_experts": 1,
    "n_group": 1,
    "num_expert_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    # Latent attention.
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "o_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "index_head_dim": 8,
    # With few heads, several keys often have the score 0, and the order of equals would decide.
    "index_n_heads": 16,
    "index_topk": 8,
    # Recurrent layers.
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_heads": 4,
    "linear_head_dim": 8,
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "mamba_dt_rank": 4,
    "state_size": 8,
    "ssm_state_size": 8,
    "time_step_rank": 4,
    "n_groups": 1,
    "mamba_ngroups": 1,
}
"""Config values of every family whose config has the name."""


_LATENT = {"num_key_value_heads": 4}
"""Config of latent attention, which has as many keys and values as heads."""
_FULL_AND_SLIDING = ["sliding_attention", "full_attention"] * 2

_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "patch_size": 14,
}

EXCEPTIONS: Mapping[str, Mapping[str, object]] = {
    "axk1": _LATENT,
    "axk2": _LATENT,
    "bailing_hybrid": _LATENT,
    "bamba": {"attn_layer_indices": [1, 3]},
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "blt_local_encoder": {"hidden_size_global": 32},
    "blt_local_decoder": {"hidden_size_global": 32},
    "codegen": {"rotary_dim": 4},
    "cohere_compass_text": {
        "layer_types": _FULL_AND_SLIDING,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
            for kind in ("sliding_attention", "full_attention")
        },
    },
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "deepseek_v32": _LATENT,
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {
            "hidden_size": 32,
            "ffn_hidden_size": 48,
            "moe_num_experts": 4,
            "moe_top_k": 2,
        },
    },
    "dots3_note_text": _LATENT
    | {
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_q_lora_rank": 16,
        "swa_kv_lora_rank": 16,
        "swa_head_dim": 12,
        "swa_qk_nope_head_dim": 8,
        "swa_v_head_dim": 8,
    },
    "dots3_note_vision_encoder": {
        "mlp_layer_types": ["dense"] * 4,
        "per_layer_config": {},
        "adapter_in_dim": 32,
        "adapter_out_dim": 32,
    },
    "dots3_note_audio_encoder": {"adapter_input_size": 32, "adapter_out_dim": 32},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {
        "num_kv_shared_layers": 2,
        "layer_types": _FULL_AND_SLIDING,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCABULARY,
        "laurel_rank": 4,
    },
    "gemma4_text": {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY},
    "gemma4": {"vision_config": _TOWER | {"pooling_kernel_size": 1}},
    "gemma4_unified_vision": {"num_soft_tokens": 4, "model_patch_size": 14},
    "gemma3_text": {"layer_types": _FULL_AND_SLIDING},
    "glm4_moe_lite": _LATENT,
    "glm_moe_dsa": _LATENT,
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": WINDOW},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "got_ocr2_vision": {"output_channels": 8},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "inkling2_text": {"layer_types": ["hybrid_sliding", "hybrid"] * 2},
    "inkling_text": {"layer_types": ["hybrid_sliding", "hybrid"] * 2},
    "kimi_linear": _LATENT | {"layer_types": ["linear_attention", "full_attention"] * 2},
    "kolibri1": {"layer_types": _FULL_AND_SLIDING},
    "laguna": {"layer_types": _FULL_AND_SLIDING},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": _LATENT | {"qk_rope_head_dim": 8, "head_dim": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "mellum": {"layer_types": _FULL_AND_SLIDING},
    "ministral": {"layer_types": _FULL_AND_SLIDING},
    "minicpm3": _LATENT | {"dim_model_base": 32},
    # A forward pass without a cache knows no window.
    "moshi": {"sliding_window": 256},
    "phi4_multimodal_audio": {
        "nemo_conv_channels": 8,
        "ext_pw_out_channel": 32,
        "depthwise_separable_out_channel": 32,
    },
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "qwen2": {"use_sliding_window": True, "layer_types": _FULL_AND_SLIDING},
    "qwen3": {"use_sliding_window": True, "layer_types": _FULL_AND_SLIDING},
    "prophetnet": {
        "num_encoder_layers": 4,
        "num_decoder_layers": 4,
        "num_encoder_attention_heads": 4,
        "num_decoder_attention_heads": 4,
    },
    "reformer": {
        "is_decoder": True,
        "axial_pos_shape": [16, 16],
        "axial_pos_embds_dim": [16, 16],
        "attention_head_size": 8,
        "feed_forward_size": 48,
        "attn_layers": ["local", "local", "local", "local"],
        "local_attn_chunk_length": WINDOW,
    },
    "roc_bert": {"shape_vocab_size": 64, "pronunciation_vocab_size": 64},
    "smollm3": {"use_sliding_window": True, "layer_types": _FULL_AND_SLIDING},
    "xlstm": {"hidden_size": 128},
    "xmod": {"default_language": "en_XX"},
    "youtu": _LATENT,
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zaya": {"layer_types": ["hybrid", "hybrid_sliding"] * 2, "num_experts_per_tok": 1},
}


def config_for(family: str, **changes: object) -> Any:
    """A small config of the family's own class."""
    return _small(CONFIG_MAPPING[family], {**EXCEPTIONS.get(family, {}), **changes})


def _small(kind: type, changes: Mapping[str, Any]) -> Any:
    names = {field.name for field in dataclasses.fields(kind)} | set(kind.attribute_map)
    settings = {name: size for name, size in SMALL.items() if name in names}
    parts = [name for name in kind.sub_configs if name not in changes]
    usual = kind() if parts else None
    for name in parts:
        if (part := getattr(usual, name)) is not None:
            settings[name] = _small(type(part), EXCEPTIONS.get(part.model_type, {})).to_dict()
    settings |= changes
    return kind(**settings)


def make_family(family: str, seed: int = 0, **changes: object) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = config_for(family, **changes)
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, parameter in made.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.05 if "embed" in name else 0.2)
    return made.eval().requires_grad_(False)


_DECODES = {
    "dropping lens": """
        afmoe apertus arcee aria_text axk1 axk2 bailing_hybrid bamba bigbird_pegasus biogpt bitnet
        blenderbot bloom codegen cohere cohere2 cohere2_moe cohere_compass_text ctrl cwm dbrx
        deepseek_v2 deepseek_v3 deepseek_v32 diffllama doge dots1 dots3_note dots3_note_text
        ernie4_5 ernie4_5_moe exaone4 exaone_moe falcon falcon_h1 flex_olmo flint fuyu gemma
        gemma2 gemma3 gemma3_text gemma4_unified gemma4_unified_text glm glm4 glm4_moe
        glm4_moe_lite glm_moe_dsa got_ocr2 gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox
        gpt_neox_japanese gpt_oss gptj granite granite_swa granitemoe granitemoe_swa
        granitemoehybrid granitemoeshared helium hunyuan_v1_dense hunyuan_v1_moe hy_v3 hyperclovax
        inkling_text internlm3 iquestcoder jais2 jamba jetmoe kimi_linear kolibri1 laguna lfm2
        lfm2_moe lfm3 llama llama4 llama4_text mbart mellum mimo_v2_flash minicpm3 minimax_m2
        minimax_m3_vl_text ministral ministral3 mistral mixtral moshi moss_transcribe_diarize mpt
        nanochat nemotron olmo olmo2 olmo3 olmo_hybrid olmoe opt pegasus persimmon phi phi3
        phi4_multimodal phimoe qwen2 qwen2_moe qwen3 qwen3_5 qwen3_5_moe qwen3_5_moe_text
        qwen3_5_text qwen3_moe qwen3_next recurrent_gemma seed_oss smollm3 solar_open stablelm
        starcoder2 vaultgemma whisper xglm youtu zaya
    """,
    "dropping": """
        hy_v4 megatron-bert modernbert-decoder qwen4_exp qwen4_exp_text roberta-prelayernorm
        xlm-roberta-xl
    """,
    "lens": """
        gemma4 gemma4_text
    """,
    "": """
        bart beam bert bert-generation big_bird blenderbot-small camembert data2vec-text
        deepseek_v4 electra ernie falcon_mamba gemma3n_text git inkling2_text longcat_flash mamba
        mamba2 marian mvp nemotron_h plbart rembert roberta roc_bert roformer trocr xlm-roberta
        xmod zamba zamba2
    """,
    "dropping lens reread": """
        xlstm
    """,
    "dropping reread": """
        reformer
    """,
    "reread": """
        minimax openai-gpt rwkv
    """,
}
"""Families that decode as `generate` does, by what else works; with `reread`, every step reads all
tokens again."""

DECODES = {family: words for words, families in _DECODES.items() for family in families.split()}

_NO_LAYERS = "not one list of layers runs, each once, when it reads text"
_NO_CLASS = "of which transformers has no causal language model"

REFUSED = {
    "blt": _NO_LAYERS,
    "cpmant": "does not read one token after another",
    "emu3": _NO_CLASS,
    "hrm_text": _NO_LAYERS,
    "mllama": _NO_CLASS,
    "prophetnet": "does not read one vector for each position",
    "xlm": _NO_LAYERS,
    "xlnet": "reads more than the tokens before each one",
}
"""Part of the sentence that refuses each family."""

_NEEDS_ANOTHER = "it drafts for another model and reads that one's keys and values"
_OTHER_CONFIG = "transformers builds it from another config than the family's"

NOT_BUILT = {
    "gemma3n": "its vision tower needs timm; its text model is gemma3n_text",
    "gemma4_assistant": _NEEDS_ANOTHER,
    "gemma4_unified_assistant": _NEEDS_ANOTHER,
    "musicgen": _OTHER_CONFIG,
    "musicgen_melody": _OTHER_CONFIG,
}
"""Reasons why no tiny model of a family could be made."""


def document() -> str:
    """Text of docs/families.md, which `python -m tests.support.families` writes."""
    counts = (len(FAMILIES), len(DECODES), len(REFUSED), len(NOT_BUILT))
    lines = [_INTRODUCTION.format(*counts, version=transformers.__version__)]
    for family, words in sorted(DECODES.items()):
        marks = ["yes" if word in words.split() else "no" for word in ("dropping", "lens")]
        marks.append("all tokens again" if "reread" in words else "its cache")
        lines.append(f"| {family} | {' | '.join(marks)} |")
    lines += ["", "## Refused", "", "| family | what the sentence says of it |", "| --- | --- |"]
    lines += [f"| {family} | {sentence} |" for family, sentence in sorted(REFUSED.items())]
    lines += ["", "## Not built", "", "| family | why |", "| --- | --- |"]
    lines += [f"| {family} | {why} |" for family, why in sorted(NOT_BUILT.items())]
    return "\n".join(lines) + "\n"


_INTRODUCTION = """# Families of models

What prunetui does with each family that transformers {version} has a causal language model of. Of
the {0} families, {1} decode as `generate` does, {2} are refused with a sentence, and of {3} no tiny
model could be made.

Each was tried as a tiny random model: saved, opened like any other and decoded for twelve greedy
tokens after a prompt of forty, which is longer than its windows. The tokens and their log
probabilities had to be those of `generate` and of one forward pass without a cache; the drift of a
dropped attention and a dropped MLP that of stock forward passes without them; and the tokens the
same again after a rewind. `make slow` repeats it, and the tests hold this page against what it
finds. A model that people bring can still have what a tiny one has not.

*Dropping*: `drop:` recipes and the ranking apply. A family without it still decodes with pruned
weights and checkpoints as variants; its layers do not have a pair of attention and MLP, or are more
than their input when both are closed. *Lens*: the layers can be read through a logit lens. *Each
step reads*: only what is new, with its cache for the rest, or all tokens again, which is slow but
right.

A model that sees or hears is read as the language model in it: its towers do not run on text.

## Decoded as `generate`

| family | dropping | lens | each step reads |
| --- | --- | --- | --- |"""


if __name__ == "__main__":
    Path("docs/families.md").write_text(document(), encoding="utf-8")
