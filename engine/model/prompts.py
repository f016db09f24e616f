"""The tokens of a prompt and of its answers, checked against the model."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedModel

from ..errors import OptionError, PromptError, UserError
from ..options import Options
from ..trace import records
from .chat_template import render_prompt
from .context_length import context_length
from .detokenize import TokenTexts
from .generation import end_tokens
from .loading import Loaded
from .tokenizer import decode, encode

ENDS_IN_END = "The prompt ends in an end token, and the lanes go on after it."


@dataclass(frozen=True)
class ReadPrompt:
    """A prompt as the model reads it."""

    record: records.Prompt
    text: str
    """The text that was encoded: the rendered chat template, or the prompt itself."""
    notes: list[str] = field(default_factory=list)
    """Sentences for the header's `notes`."""


def read_asked(options: Options, loaded: Loaded) -> ReadPrompt:
    """Read the tokens of the options, or their prompt as `read_prompt` does.

    Raises `UserError` for what the model cannot read.
    """
    if options.prompt_tokens is not None:
        return _read_tokens(options.prompt_tokens, loaded)
    return read_prompt(options.prompt, loaded, options.raw)


def reads_same(options: Options, others: Options) -> bool:
    """Whether two sessions of one model read the same prompt."""
    names = ("prompt", "prompt_tokens", "raw")
    return all(getattr(options, name) == getattr(others, name) for name in names)


def read_prompt(prompt: str, loaded: Loaded, raw: bool) -> ReadPrompt:
    """Encode a prompt, through the model's chat template unless `raw`.

    Raises `UserError` for a prompt of no tokens, of tokens that the model does not know or of too
    many, and for a chat template that does not take it.
    """
    if not prompt.strip():
        raise PromptError("the prompt is empty; write something for the lanes to go on from")
    templated = bool(loaded.tokenizer.chat_template) and not raw
    text = _rendered(prompt, loaded) if templated else prompt
    notes: list[str] = []
    tokens, added = (encode(loaded.tokenizer, text), 0) if templated else encode_open(text, loaded)
    if added:
        notes.append("The tokenizer adds an end token to every text; the prompt is read without.")
    ends = end_tokens(loaded.model, loaded.tokenizer)
    if _trailing_ends(tokens, ends):
        notes.append(ENDS_IN_END)
    if not tokens:
        raise PromptError("the tokenizer makes no token of this prompt; write another")
    check_length(tokens, loaded)
    record = records.Prompt(text=prompt, chat_template=templated, tokens=tokens)
    return ReadPrompt(record, text, notes)


def encode_open(text: str, loaded: Loaded) -> tuple[list[int], int]:
    """Tokens of a text that may go on: with those that the tokenizer sets before it, and without
    the end tokens that it sets after it, whose number follows. Those that were typed stay."""
    tokens = encode(loaded.tokenizer, text, special=True)
    ends = end_tokens(loaded.model, loaded.tokenizer)
    if not (added := _trailing_ends(tokens, ends)):
        return tokens, 0
    added = max(added - _trailing_ends(encode(loaded.tokenizer, text), ends), 0)
    return tokens[: len(tokens) - added], added


def _read_tokens(tokens: Sequence[int], loaded: Loaded) -> ReadPrompt:
    """A prompt of tokens, with the text that they are, less what the tokenizer sets before each
    text: read raw, it gives them again where any text does."""
    if not tokens:
        raise OptionError("the prompt has no tokens; name one at least")
    _check_tokens(tokens, "prompt", loaded)
    tokens = [*tokens]
    check_length(tokens, loaded)
    texts = [decode(loaded.tokenizer, tokens[skipped:]) for skipped in (0, 1)]
    text = next(
        (text for text in texts if encode(loaded.tokenizer, text, special=True) == tokens), texts[0]
    )
    ends = _trailing_ends(tokens, end_tokens(loaded.model, loaded.tokenizer))
    record = records.Prompt(text=text, chat_template=False, tokens=tokens)
    return ReadPrompt(record, text, [ENDS_IN_END] if ends else [])


def _rendered(prompt: str, loaded: Loaded) -> str:
    try:
        return render_prompt(loaded.tokenizer, prompt, loaded.name)
    except UserError as error:
        raise PromptError(str(error)) from error


def recorded_prompt(header: records.Header, options: Options, loaded: Loaded) -> ReadPrompt:
    """The prompt of a trace, with the tokens of then: a chat template may write the date.

    Raises `UserError` if the options have another, or the model cannot read its tokens.
    """
    record = header.prompt
    if options.prompt != record.text or options.prompt_tokens not in (None, (*record.tokens,)):
        raise OptionError("the prompt's tokens are not the trace's; it cannot be resumed")
    check_length(record.tokens, loaded)
    text = decode(loaded.tokenizer, record.tokens) if record.chat_template else record.text
    return ReadPrompt(record, text, [note for note in header.notes if note not in loaded.notes])


def check_length(tokens: list[int], loaded: Loaded) -> None:
    """Raise `UserError` for tokens that the model does not know, and for too many."""
    check_known(tokens, loaded)
    limit = context_length(loaded.model)
    if limit is not None and len(tokens) >= limit:
        raise PromptError(
            f"the prompt has {len(tokens)} tokens and the model's context {limit}; shorten it"
        )


def _trailing_ends(tokens: list[int], ends: set[int]) -> int:
    """Number of end tokens at the end of a text."""
    return sum(1 for _ in itertools.takewhile(ends.__contains__, reversed(tokens)))


def check_known(tokens: list[int], loaded: Loaded) -> None:
    """Raise `UserError` for a token beyond the model's vocabulary."""
    highest, size = max(tokens), vocabulary_size(loaded.model)
    if highest >= size:
        raise OptionError(
            f"{decode(loaded.tokenizer, [highest])!r} is the tokenizer's token {highest}, and the "
            f"model knows {size}; the two do not belong together"
        )


def _check_tokens(tokens: Sequence[int], what: str, loaded: Loaded) -> None:
    """Raise `UserError` for numbers that are no tokens of the model."""
    size = vocabulary_size(loaded.model)
    if wrong := [token for token in tokens if not 0 <= token < size]:
        raise OptionError(
            f"the {what} has token {wrong[0]}, and the model's tokens are 0 to {size - 1}; the "
            "tokens are another model's"
        )


def asked_answers(options: Options, loaded: Loaded, prompt: str) -> records.Answers | None:
    """Answers by the options' tokens, with the texts that go with them, or as `find_answers` finds
    them after the prompt's text.

    Raises `UserError` for tokens that are not the model's, that are named twice, or that there is
    not a text for each of.
    """
    tokens = options.answer_tokens
    if tokens is None:
        return find_answers(options.answers, loaded, prompt)
    texts = options.answers or tuple(map(TokenTexts(loaded.tokenizer).__getitem__, tokens))
    _check_tokens(tokens, "list of answers", loaded)
    if len(tokens) != len(texts):
        raise OptionError(
            f"there are {len(texts)} texts of answers and {len(tokens)} tokens; name a text for "
            "each token"
        )
    if twice := [token for token in tokens if tokens.count(token) > 1]:
        raise OptionError(f"the answer's token {twice[0]} is named twice; name each token once")
    return records.Answers(texts=[*texts], tokens=[*tokens]) if tokens else None


def find_answers(
    texts: tuple[str, ...] | None, loaded: Loaded, prompt: str
) -> records.Answers | None:
    """The answers' tokens after the prompt's text. Without `texts` these are A to D, with a space
    after a word, or None if they are not a token each.

    Raises `UserError` for a text that is not one token there, or one that the model does not know.
    """
    prompt_tokens = encode(loaded.tokenizer, prompt)
    # A text that would change the prompt's last token is read after a line break instead.
    contexts = ((prompt, prompt_tokens), ("\n", encode(loaded.tokenizer, "\n")))
    # Tokens may have no text.
    ends_in_added = (
        prompt_tokens[-1:] and prompt_tokens[-1] in loaded.tokenizer.added_tokens_decoder
    )
    starts_word = prompt[-1:].isspace() or ends_in_added
    answers = texts or tuple(letter if starts_word else f" {letter}" for letter in "ABCD")
    tokens: list[int] = []
    for text in answers:
        added = _continuation(text, loaded, contexts)
        if len(added) != 1 or added[0] in tokens:
            if texts is None:
                return None
            if len(added) == 1:
                raise OptionError(f"the answer {text!r} is named twice; name each token once")
            raise OptionError(
                f"the answer {text!r} is {len(added)} tokens and must be one after this prompt; "
                "name another, with or without a space before it"
            )
        tokens += added
    if texts is None and max(tokens) >= vocabulary_size(loaded.model):
        return None
    check_known(tokens, loaded)
    return records.Answers(texts=[*answers], tokens=tokens)


def _continuation(
    text: str, loaded: Loaded, contexts: Sequence[tuple[str, list[int]]]
) -> list[int]:
    """The tokens that a text adds to the first context whose own tokens it does not change.

    Alone it may have others: some tokenizers set a space before every text.
    """
    for before, tokens in contexts:
        longer = encode(loaded.tokenizer, before + text)
        if longer[: len(tokens)] == tokens and len(longer) > len(tokens):
            return longer[len(tokens) :]
    return encode(loaded.tokenizer, text)


def vocabulary_size(model: PreTrainedModel) -> int:
    return model.config.get_text_config().vocab_size
