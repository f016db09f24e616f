"""An item of an evaluation as a session on exactly its tokens; no torch."""

import msgspec

from ..errors import UserError
from ..options import Options
from .records import Header, Item


def item_options(header: Header, item: Item) -> Options:
    """Options with which an item opens as a session: greedy, on the item's own tokens.

    Tokens that begin the item's options are the answers among which view 4 compares: whole options
    where they have one token, the first token of longer ones. There are none of them where two
    begin with the same token, or where options follow contexts of their own. A generation has its
    number of new tokens, but a session knows no stop sequences and goes on after them. Raises
    `UserError` for an item without tokens.
    """
    if not item.tokens:
        raise UserError(
            f"item {item.index} of {item.task} has no tokens before its answer, and a session "
            "begins with one at least; choose another"
        )
    return msgspec.structs.replace(
        header.options,
        prompt=item.contexts[0] if item.contexts else item.question,
        prompt_tokens=tuple(item.tokens),
        raw=True,
        temperature=0.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=item.max_new_tokens or header.options.max_new_tokens,
        context="both",
        ignore_eos=False,
        answers=None,
        answer_tokens=_answer_tokens(item),
    )


def _answer_tokens(item: Item) -> tuple[int, ...] | None:
    """First token of each option; None if they do not tell the options apart."""
    tokens = tuple(option.tokens[0] for option in item.options if option.tokens)
    whole = len(tokens) == len(item.options) > 1
    one_context = len({option.context for option in item.options}) == 1
    return tokens if whole and one_context and len(set(tokens)) == len(tokens) else None
