"""Prompts and answers, through tokenizers and chat templates of all kinds."""

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
import torch
from prunetui.engine.errors import UserError
from prunetui.engine.model import chat_template
from prunetui.engine.model.chat_template import render_prompt, start_renderer
from prunetui.engine.model.checkpoint_files import CheckpointFiles
from prunetui.engine.model.loading import Loaded
from prunetui.engine.model.prompts import find_answers, read_prompt
from prunetui.engine.model.reference import Reference
from prunetui.engine.options import Options
from prunetui.engine.session.session import open_session
from prunetui.engine.trace.file import read_trace
from prunetui.engine.variants.calibration import Calibration
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import BatchEncoding, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..support.models import (
    END,
    make_model,
    make_spm_tokenizer,
    make_tokenizer,
    save_model_directory,
)

PLAIN = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}assistant:"
CHATML = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content | trim }}"
    "{{ eos_token + '\n' }}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
PARTS = "{% for part in messages[0]['content'] %}{{ part['text'] }}\n{% endfor %}"
EITHER = (
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
    "{{ m.content[0].text }}!{% endif %}{% endfor %}"
)
DATED = "{{ strftime_now('%f') }} " + PLAIN
ENDLESS = (
    "{{ messages[0].content }}"
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
)
HUGE = "{{ messages[0].content }}{{ 'a' * 10**10 }}"
LONG = "{{ messages[0].content }}{{ 'a' * 10**8 }}"


def load_tiny(tokenizer: PreTrainedTokenizerBase, **config: object) -> Loaded:
    model = make_model("llama", **{"vocab_size": len(tokenizer), **config})
    files = CheckpointFiles(Path("nowhere"), {}, {})
    reference = Reference(torch.empty(0), torch.empty(0), torch.empty(0))
    return Loaded(model, tokenizer, "tiny", "nowhere", "none", files, reference)


@pytest.mark.parametrize("template", [PLAIN, CHATML, EITHER])
def test_a_template_renders_as_transformers_does(template: str) -> None:
    loaded = load_tiny(make_tokenizer(template))
    message = [{"role": "user", "content": " Hi,  it's\n<é>\ud800\U0001f389 "}]
    text = render_prompt(loaded.tokenizer, message[0]["content"], "tiny")
    assert text == loaded.tokenizer.apply_chat_template(
        message, add_generation_prompt=True, tokenize=False
    )
    message[0]["content"] = "Hello there"
    read = read_prompt("Hello there", loaded, raw=False)
    rendered: Any = loaded.tokenizer.apply_chat_template(message, add_generation_prompt=True)
    assert read.record.tokens == rendered["input_ids"]
    assert (read.record.chat_template, read.record.text) == (True, "Hello there")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (PARTS, "Say.\n"),
        ("{{ messages[0].content[0].text | upper }}", "SAY."),
        ("{{ messages[0].content | tojson }}", '"Say."'),
        ({"default": "d{{ messages[0].content }}", "rag": "r"}, "dSay."),
    ],
)
def test_a_template_is_given_the_form_that_it_reads(
    template: str | dict[str, str], expected: str
) -> None:
    assert render_prompt(make_tokenizer(template), "Say.", "tiny") == expected


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (
            "{{ raise_exception('Only\nwith a <system> message.') }}",
            "(Only with a <system> message.)",
        ),
        ("{% for m in messages %}{{ m['content'] }}", "endfor"),
        ("{{ tools[0].name + messages[0].content }}", "None has no element 0"),
        ("{{ absent.name }}{{ messages[0].content }}", "'absent' is undefined"),
        ("{{ messages[0].content.__class__.__mro__ }}", "unsafe"),
        ("{{ 1 // 0 }}", "by zero"),
        ("Hello.", "leaves the prompt out"),
        ({"rag": "r", "tool_use": "t"}, "are called rag, tool_use, and none of them default"),
        ("{{ " + "(" * 100_000 + "}}", "recursion"),
        (HUGE, "it takes more than 1 GB of memory"),
        (LONG, "it makes 100000001 characters of the prompt"),
    ],
)
def test_a_template_that_does_not_take_the_prompt_is_refused_with_its_own_words(
    template: str | dict[str, str], why: str
) -> None:
    tokenizer = make_tokenizer(template)
    with pytest.raises(UserError) as problem:
        render_prompt(tokenizer, "x", "tiny")
    assert why in str(problem.value)
    assert str(problem.value).endswith("; --raw reads the prompt without it")
    assert "\n" not in str(problem.value)
    # The next is rendered.
    assert render_prompt(make_tokenizer(PLAIN), "x", "tiny") == "user: x\nassistant:"


def test_an_endless_template_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "RENDER_SECONDS", 1)
    with pytest.raises(UserError, match="it was not done after 1 s"):
        render_prompt(make_tokenizer(ENDLESS), "x", "tiny")
    assert render_prompt(make_tokenizer(PLAIN), "x", "tiny") == "user: x\nassistant:"


def test_a_renderer_that_is_gone_is_replaced() -> None:
    render_prompt(make_tokenizer(PLAIN), "x", "tiny")
    first = start_renderer()
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    assert render_prompt(make_tokenizer(PLAIN), "x", "tiny") == "user: x\nassistant:"
    assert start_renderer() is not first


ASKS = """
import os, signal, sys, threading
from prunetui.engine.model.chat_template import start_renderer
plain, endless, pipe = sys.argv[1:]
request = {"conversations": [[{"role": "user", "content": "x"}]], "chat_template": plain}
process = start_renderer()
os.write(int(pipe), f"{process.process.pid} {process.render(request)!r}\\n".encode())
request["chat_template"] = endless
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
process.render(request)
"""


def test_the_renderer_ends_with_the_process_that_asks() -> None:
    """A renderer that starts with stdin, stdout and stderr closed, and gets no secret."""
    reader, writer = os.pipe()
    environment = os.environ | {"HF_TOKEN": "secret"}
    arguments = (sys.executable, ASKS, PLAIN, ENDLESS)
    asking = subprocess.Popen(
        ["sh", "-c", f'exec "$0" -c "$@" {writer} <&- >&- 2>&-', *arguments],
        pass_fds=[writer],
        env=environment,
    )
    os.close(writer)
    with os.fdopen(reader) as file:
        number, text = file.readline().split(" ", 1)
        assert text == "'user: x\\nassistant:'\n"
        child = Path("/proc") / number
        if child.exists():
            assert b"secret" not in (child / "environ").read_bytes()
    asking.wait()
    until = monotonic() + 10
    while _alive(int(number)):
        assert monotonic() < until
        sleep(0.02)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    # Where nobody waits for it, it stays as a zombie.
    return not stat.exists() or ") Z " not in stat.read_text()


# -- tokens ---------------------------------------------------------------------------------------


def with_end(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer, which adds an end token to every text as with `add_eos_token`."""
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <end>", special_tokens=[("<end>", END)]
    )
    return tokenizer


def test_an_end_token_that_the_tokenizer_adds_is_not_read() -> None:
    plain, adding = load_tiny(make_tokenizer()), load_tiny(with_end(make_tokenizer()))
    tokens = read_prompt("Say", plain, raw=True).record.tokens
    read = read_prompt("Say", adding, raw=True)
    assert (read.record.tokens, len(read.notes)) == (tokens, 1)
    assert "adds an end token" in read.notes[0]
    assert read_prompt("Say", plain, raw=True).notes == []
    # What was typed is the user's.
    typed = read_prompt("Say<end>", adding, raw=True)
    assert (typed.record.tokens, len(typed.notes)) == ([*tokens, END], 2)
    options = Options(answers=("x", "y"), calibration_length=32, calibration_samples=2)
    assert find_answers(options.answers, adding, "Say") == find_answers(
        options.answers, plain, "Say"
    )
    ours, theirs = (
        Calibration(loaded, options, lambda *_: None).windows() for loaded in (adding, plain)
    )
    assert [window.tolist() for window in ours] == [window.tolist() for window in theirs]


def test_a_prompt_that_ends_in_an_end_token_is_named() -> None:
    loaded = load_tiny(make_tokenizer("{{ messages[0].content }}{{ eos_token }}"))
    read = read_prompt("Say", loaded, raw=False)
    assert read.record.tokens[-1] == END
    assert read.notes == ["The prompt ends in an end token, and the lanes go on after it."]


def gpt_tokenizer(template: str | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer as GPT-2's, where a space is part of the word after it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [f"Ġ{letter}" for letter in "ABCD"]
    pieces = {piece: token for token, piece in enumerate(["<end>", *alphabet, *words])}
    tokenizer = Tokenizer(models.BPE(pieces, [("Ġ", letter) for letter in "ABCD"]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", chat_template=template
    )


LLAMA = "[INST] {{ messages[0].content }} [/INST]"


@pytest.mark.parametrize(
    ("make", "template", "prompt", "answers", "pieces"),
    [
        (gpt_tokenizer, None, "Answer:", None, ["ĠA", "ĠB", "ĠC", "ĠD"]),
        (gpt_tokenizer, None, "Answer:", ("A", " B"), ["A", "ĠB"]),
        (gpt_tokenizer, None, "Answer: ", None, ["A", "B", "C", "D"]),
        (gpt_tokenizer, CHATML, "Which?", None, ["A", "B", "C", "D"]),
        (gpt_tokenizer, "{{ messages[0].content + eos_token }}", "x", None, ["A", "B", "C", "D"]),
        (make_spm_tokenizer, None, "Answer:", None, ["▁A", "▁B", "▁C", "▁D"]),
        (make_spm_tokenizer, None, "Answer:", (" A", "B"), ["▁A", "B"]),
        (make_spm_tokenizer, None, "Answer: ", (" A", "B"), ["▁A", "B"]),
        (make_spm_tokenizer, None, "Answer:", ("AB",), None),
        (make_spm_tokenizer, LLAMA, "Which?", ("B", "CD"), None),
        (make_spm_tokenizer, None, "Answer: ", ("A", "B"), ["A", "B"]),
        (make_spm_tokenizer, LLAMA, "Which?", None, ["▁A", "▁B", "▁C", "▁D"]),
        (make_spm_tokenizer, CHATML, "Which?", None, ["A", "B", "C", "D"]),
    ],
)
def test_answers_are_the_tokens_that_follow_the_prompt(
    make: Callable[[str | None], PreTrainedTokenizerFast],
    template: str | None,
    prompt: str,
    answers: tuple[str, ...] | None,
    pieces: list[str] | None,
) -> None:
    loaded = load_tiny(make(template))
    text = read_prompt(prompt, loaded, raw=False).text
    if pieces is None:
        with pytest.raises(UserError, match="is 2 tokens and must be one after this prompt"):
            find_answers(answers, loaded, text)
        return
    answers_record = find_answers(answers, loaded, text)
    assert answers_record is not None
    assert loaded.tokenizer.convert_ids_to_tokens(answers_record.tokens) == pieces
    space = " " if answers is None and pieces[0] != "A" else ""
    assert answers_record.texts == [*(answers or (space + letter for letter in "ABCD"))]


class Broken(PreTrainedTokenizerFast):
    def __call__(self, *_args: Any, **_settings: Any) -> BatchEncoding:
        raise ValueError("a\ntokenizer")


def test_a_tokenizer_that_raises_is_named() -> None:
    loaded = load_tiny(make_tokenizer())
    broken = dataclasses.replace(
        loaded, tokenizer=Broken(tokenizer_object=loaded.tokenizer.backend_tokenizer)
    )
    with pytest.raises(UserError, match=r"the tokenizer cannot turn the text into tokens \(a tok"):
        read_prompt("x", broken, raw=True)


# -- sessions -------------------------------------------------------------------------------------


def save_tiny(directory: Path, template: str | None) -> Options:
    save_model_directory(directory)
    make_tokenizer(template).save_pretrained(directory)
    return Options(
        model=str(directory), prompt="Say", variants=("drop:attn=[1]",), max_new_tokens=4
    )


def test_a_session_goes_on_with_the_tokens_that_its_template_wrote_then(tmp_path: Path) -> None:
    options = save_tiny(tmp_path / "model", DATED)
    whole = open_session(options, None, lambda *_: None)
    file = tmp_path / "a.trace.jsonl"
    session = open_session(options, file, lambda *_: None)
    before = session.trace.header
    assert before.prompt.tokens != whole.trace.header.prompt.tokens
    session.step()
    session.close()
    resumed = open_session(options, None, lambda *_: None, read_trace(file))
    header = resumed.trace.header
    assert (header.prompt, header.answers) == (before.prompt, before.answers)
    assert resumed.step().step == 1
    # Other lanes and another context are compared on the same prompt; a changed prompt is read.
    resumed.set_variants(["control"])
    resumed.restart(context="free")
    assert resumed.trace.header.prompt == before.prompt
    resumed.restart(prompt="Say.")
    tokens = resumed.trace.header.prompt.tokens
    assert tokens[7:] == [*before.prompt.tokens[7:16], *tokens[16:17], *before.prompt.tokens[16:]]


def test_what_a_prompt_ends_in_is_in_the_header(tmp_path: Path) -> None:
    options = save_tiny(tmp_path, "{{ messages[0].content }}{{ eos_token }}")
    session = open_session(options, None, lambda *_: None)
    assert session.trace.header.notes == [
        "The prompt ends in an end token, and the lanes go on after it."
    ]
    session.restart(raw=True)
    assert session.trace.header.notes == []
