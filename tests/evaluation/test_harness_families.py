"""lm-eval's tasks in all lanes of several families and tokenizers against lm-eval's own runs."""

from pathlib import Path
from typing import Any

import pytest

from ..support.harness import add_beginning, compare_with_stock, open_evaluated, write_tasks
from ..support.models import make_model, make_spm_tokenizer, make_tokenizer

CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if not loop.last %}|{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "mixtral"])
@pytest.mark.parametrize(
    ("tokenizer", "settings"),
    [
        ("plain", {"num_fewshot": 1, "limit": 3}),
        ("beginning", {"apply_chat_template": True}),
        ("space", {}),
    ],
)
def test_families_and_tokenizers(
    family: str, tokenizer: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    made = {
        "plain": lambda: make_tokenizer(CHAT),
        "beginning": lambda: add_beginning(make_tokenizer(CHAT)),
        "space": lambda: make_spm_tokenizer(CHAT),
    }[tokenizer]()
    directory = tmp_path / "model"
    make_model(family, vocab_size=len(made)).save_pretrained(directory)
    made.save_pretrained(directory)
    names = write_tasks(tmp_path)
    variants = ["control", "drop:attn=[2]", "magnitude:0.5+drop:mlp=[1]"]
    compare_with_stock(open_evaluated(directory, variants, names, **settings), names, tmp_path)
