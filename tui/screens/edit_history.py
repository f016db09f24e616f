"""States of an editor before each edit."""

from typing import Generic, TypeVar

State = TypeVar("State")


class EditHistory(Generic[State]):
    """Stack of the states that undoing goes back to; a run of typing is one edit."""

    def __init__(self) -> None:
        self._states: list[State] = []
        self._typing = False

    def push(self, state: State, *, typing: bool = False) -> None:
        """Keep the state before an edit."""
        if not (typing and self._typing):
            self._states.append(state)
        self._typing = typing

    def pop(self) -> State | None:
        """Return the state before the last edit that is not undone; None if there is none."""
        self._typing = False
        return self._states.pop() if self._states else None
