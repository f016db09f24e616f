"""What lm-eval's code may do while it runs: print nothing, and execute no code that is data."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any, NoReturn
from unittest.mock import patch

import evaluate
import lm_eval.utils
from jinja2.sandbox import SandboxedEnvironment

from ...errors import UserError


def _no_code_from_the_hub(path: object, *_: Any, **__: Any) -> NoReturn:
    raise UserError(
        f"the metric {path} is code from the Hugging Face hub, which prunetui does not run"
    )


def _sandbox() -> SandboxedEnvironment:
    """Environment of task templates as lm-eval has it, in which they reach no Python."""
    stock = lm_eval.utils.env
    sandbox = SandboxedEnvironment(
        loader=stock.loader, undefined=stock.undefined, keep_trailing_newline=True
    )
    sandbox.filters.update(stock.filters)
    return sandbox


@contextmanager
def sealed() -> Iterator[None]:
    """Run lm-eval's code without its bars, prints and warnings, and its templates in a sandbox.

    Metrics that `evaluate` would fetch and execute raise `UserError`.
    """
    disabled = logging.root.manager.disable
    with ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        stack.enter_context(redirect_stdout(nowhere))
        stack.enter_context(redirect_stderr(nowhere))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(patch.object(lm_eval.utils, "env", _sandbox()))
        stack.enter_context(patch.object(evaluate, "load", _no_code_from_the_hub))
        stack.callback(logging.disable, disabled)
        logging.disable(logging.WARNING)
        yield
