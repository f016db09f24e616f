"""Errors of foreign code become a sentence with their whole message."""

import logging

import pytest
import torch
from prunetui.engine.errors import UserError
from prunetui.engine.foreign import MAX_MESSAGE_LENGTH, foreign_code, message
from prunetui.engine.out_of_memory import guard_memory


class PanicException(BaseException):
    """Error like that of Rust's extension modules, which is no `Exception`."""


@pytest.mark.parametrize("kind", [ValueError, PanicException, SystemExit, RecursionError])
def test_a_message_is_whole_and_in_one_line(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(UserError) as raised,
        foreign_code("the template of x fails", "try --raw"),
    ):
        raise kind("first\n  second\nthird")
    assert str(raised.value) == "the template of x fails (first second third); try --raw"
    assert "first\n  second\nthird" in caplog.text


@pytest.mark.parametrize(
    "error", [UserError("ours"), KeyboardInterrupt(), GeneratorExit(), MemoryError()]
)
def test_what_is_not_foreign_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, foreign_code("a"):
        raise error
    assert raised.value is error


def test_memory_that_runs_out_has_its_own_sentence() -> None:
    for error in (torch.OutOfMemoryError(), PanicException("can't start new thread")):
        with (
            pytest.raises(UserError, match=r"^too big$"),
            guard_memory("too big"),
            foreign_code("a"),
        ):
            raise error


def test_a_message_is_not_endless() -> None:
    assert message(ValueError()) == "ValueError"
    assert message(ValueError("a" * MAX_MESSAGE_LENGTH)) == "a" * MAX_MESSAGE_LENGTH
    assert message(ValueError("a" * 10**6)).startswith("a" * MAX_MESSAGE_LENGTH + "… (all")
