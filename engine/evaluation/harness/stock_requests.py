"""What lm-eval's Hugging Face model reads for a request, and makes of generated tokens."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jinja2
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from ...errors import UserError
from ...model.chat_template import TemplateError, start_renderer
from ...model.loading import Loaded
from ..requests import Prompt, Request

# Its decorator hides its type.
_Stock: Any = HFLM


@dataclass(frozen=True)
class Text:
    """A text to rate, and how many tokens of it were cut off on the left."""

    request: Request
    truncated: int


class StockRequests(_Stock):
    """lm-eval's own code from a request to its tokens, without a forward pass.

    Tokens, truncation and stop sequences are those of `HFLM` at batch size 1.
    """

    def __init__(self, loaded: Loaded) -> None:
        tokenizer = copy.deepcopy(loaded.tokenizer)
        # Only the config: given the model, lm-eval would tie its weights anew.
        config: Any = SimpleNamespace(config=loaded.model.config, device=torch.device("cpu"))
        super().__init__(pretrained=config, tokenizer=tokenizer, backend="causal", batch_size=1)
        if isinstance(tokenizer.chat_template, str):
            vars(tokenizer)["apply_chat_template"] = self._render
        self._texts: list[Text] = []
        self._prompt: Prompt | None = None
        self._generated: Sequence[int] = ()

    def texts(self, instance: Instance) -> list[Text]:
        """Texts whose log probabilities add up to a request's: one, or the windows of a long one.

        Raises `UserError` as `check_option` does, for its tokens after the context.
        """
        self._texts = []
        if instance.request_type == "loglikelihood":
            self.loglikelihood([instance], disable_tqdm=True)
        else:
            self.loglikelihood_rolling([instance], disable_tqdm=True)
        return self._texts

    def check_option(self, option: str) -> None:
        """Raise `UserError` for an option without tokens, or longer than the model's context."""
        self._check_option(option, self.tok_encode(option, add_special_tokens=False))

    def _check_option(self, option: str, tokens: Sequence[int]) -> None:
        if not tokens:
            raise UserError(f"the option {option!r} has no tokens")
        if len(tokens) > self.max_length:
            raise UserError(
                f"an option has {len(tokens)} tokens, and the model reads at most {self.max_length}"
            )

    def prompt(self, instance: Instance) -> tuple[Prompt, int]:
        """Prompt of a request to generate, and how many tokens were cut off on the left."""
        self._generated = ()
        self.generate_until([instance], disable_tqdm=True)
        assert self._prompt is not None
        tokens = self._prompt.tokens
        if not tokens:
            raise UserError("the prompt has no tokens")
        whole, _ = self.tok_batch_encode([instance.args[0]])
        return self._prompt, whole.shape[1] - len(tokens)

    def generated_text(self, instance: Instance, tokens: Sequence[int]) -> str:
        """Text that lm-eval makes of generated tokens: up to the first stop sequence."""
        self._generated = tokens
        (text,) = self.generate_until([instance], disable_tqdm=True)
        return text

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        for strings, context, continuation in requests:
            self._check_option(strings[1] if strings else "", continuation)
            kept = self.max_length + 1 - len(continuation)
            request = Request(tuple(context[-kept:]), tuple(continuation))
            self._texts.append(Text(request, max(0, len(context) - kept)))
        return [(0.0, False)] * len(requests)

    def _model_generate(
        self, context: Tensor, max_length: int, stop: list[str], **_: Any
    ) -> Tensor:
        tokens = tuple(context[0].tolist())
        self._prompt = Prompt(tokens, tuple(stop), max_length - len(tokens))
        return torch.cat([context, torch.tensor([[*self._generated]], dtype=context.dtype)], 1)

    def _render(self, conversation: list[dict[str, str]], **settings: Any) -> str:
        """Render a chat in the process for templates, which may loop for ever."""
        del settings["tokenize"]
        request = {
            "conversations": [conversation],
            "chat_template": self.tokenizer.chat_template,
            **settings,
            **self.tokenizer.special_tokens_map,
        }
        try:
            return start_renderer().render(request)
        except TemplateError as error:
            # What lm-eval takes for a template that has no system role.
            raise jinja2.TemplateError(str(error)) from error
