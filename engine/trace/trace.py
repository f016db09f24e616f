"""A trace in memory: the header and the steps that stand, in branches."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import msgspec

from ..errors import UserError
from .blame import Blame, with_blame
from .divergence import chose_nothing, not_numbers_mark
from .records import Blamed, Branch, Event, Header, Lens, Read, Rewind, Step, Switch


@dataclass(frozen=True)
class Origin:
    """Point at which a branch leaves its parent."""

    parent: int
    at: int
    """Number of steps that the two share."""


class Numbered(Protocol):
    """Entry of a branch, with its index there."""

    @property
    def step(self) -> int: ...


S = TypeVar("S", bound=Numbered)


class Branches(Generic[S]):
    """Steps in branches, one of which is open.

    `steps` are those of the open branch. The list only ever grows; a rewind and another branch put
    another list in its place. A reader on another thread that takes `steps` once sees one history,
    and tells another by the list's identity.
    """

    def __init__(self) -> None:
        self.steps: list[S] = []
        self.branch = 0
        """Number of the open branch, that of `steps`."""
        self.branches: list[list[S]] = [self.steps]
        """Steps of each branch, from the prompt on."""
        self.origins: list[Origin | None] = [None]
        """Origin of each branch; None for branch 0."""

    def append(self, step: S) -> None:
        if step.step != len(self.steps):
            raise ValueError(f"step {step.step} cannot follow {len(self.steps)} steps")
        self.steps.append(step)

    def rewind(self, to: int) -> None:
        """Keep the first `to` steps of this branch."""
        if not 0 <= to <= len(self.steps):
            raise ValueError(f"cannot rewind {len(self.steps)} steps to {to}")
        self.steps = self.branches[self.branch] = self.steps[:to]
        origin = self.origins[self.branch]
        if origin is not None and to < origin.at:
            # The branch now leaves its parent earlier.
            self.origins[self.branch] = Origin(origin.parent, to)

    def fork(self, at: int) -> None:
        """Open a new branch that shares the first `at` steps with this one."""
        if not 0 <= at <= len(self.steps):
            raise ValueError(f"cannot branch off after {at} of {len(self.steps)} steps")
        self.origins.append(Origin(self.branch, at))
        self.branches.append(self.steps[:at])
        self.switch(len(self.branches) - 1)

    def switch(self, branch: int) -> None:
        if not 0 <= branch < len(self.branches):
            raise ValueError(f"there is no branch {branch}")
        self.branch = branch
        self.steps = self.branches[branch]

    def move(self, event: Rewind | Branch | Switch) -> None:
        match event:
            case Rewind():
                self.rewind(event.to)
            case Branch():
                if event.parent != self.branch:
                    raise ValueError(f"branch {self.branch} is open, not {event.parent}")
                self.fork(event.at)
            case Switch():
                self.switch(event.to)


class Trace(Branches[Step]):
    """Header and steps of a session, in branches."""

    def __init__(self, header: Header) -> None:
        super().__init__()
        self.header = header
        self.preview: Step | None = None
        """Step 0 as a session would decode it now: numbers of the token that follows the prompt. No
        event records it; a trace read from a file has none."""

    def set_lens(self, number: int, lens: Lens) -> None:
        """Attach a lens to a step of this branch and of those that share it."""
        step = self._step_to_mark(number)
        self._replace(number, msgspec.structs.replace(step, lens=lens))

    def add_blame(self, number: int, blame: Blame) -> None:
        """Attach a blame to a step of this branch and of those that share it."""
        step = self._step_to_mark(number)
        blames = with_blame(step.blames, blame)
        self._replace(number, msgspec.structs.replace(step, blames=blames))

    def _step_to_mark(self, number: int) -> Step:
        if not 0 <= number < len(self.steps):
            raise ValueError(f"there is no step {number} to read")
        return self.steps[number]

    def _replace(self, number: int, updated: Step) -> None:
        step = self.steps[number]
        for steps in self.branches:
            if number < len(steps) and steps[number] is step:
                steps[number] = updated

    def branch_with(self, at: int, tokens: dict[int, int]) -> int | None:
        """Branch that forcing these tokens, by lane, at step `at` of this one would repeat: its
        lanes read the same before, took these tokens there, and no other was forced.

        Raises `UserError` if that is this branch: nothing would change.
        """
        before = self.steps[:at]
        alike = [
            branch
            for branch, steps in enumerate(self.branches)
            if at < len(steps)
            and _took(steps[at], tokens)
            and all(map(_read_alike, before, steps[:at]))
        ]
        if self.branch in alike:
            lane = min(tokens)
            who = "the lanes take" if len(tokens) > 1 else f"{self.lane_names[lane]} takes"
            token = self.steps[at].lanes[lane]
            text = token.text if token else ""
            raise UserError(f"{who} {text!r} at step {at} already; force another token")
        return alike[0] if alike else None

    def apply(self, event: Event) -> None:
        match event:
            case Step():
                self.append(event)
            case Read():
                self.set_lens(event.step, event.lens)
            case Blamed():
                self.add_blame(event.step, event.blame)
            case _:
                self.move(event)

    def events(self) -> Iterator[Event]:
        """Events that give a new trace these branches, with this one open."""
        yield from self.branches[0]
        open_branch = 0
        for branch, origin in enumerate(self.origins):
            if origin is None:
                continue
            if origin.parent != open_branch:
                yield Switch(to=origin.parent)
            # Either may have been taken back and decoded again since.
            pairs = zip(self.branches[origin.parent], self.branches[branch], strict=False)
            shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] is pair[1], pairs))
            yield Branch(parent=origin.parent, at=shared)
            yield from self.branches[branch][shared:]
            open_branch = branch
        if open_branch != self.branch:
            yield Switch(to=self.branch)

    @property
    def lane_names(self) -> list[str]:
        return [lane.name for lane in self.header.lanes]

    def text(self, lane: int) -> str:
        """Text of the lane so far."""
        return "".join(token.text for step in self.steps if (token := step.lanes[lane]))

    def marked_text(self, lane: int) -> str:
        """Text of the lane with a mark for each run of steps at which it chose nothing."""
        return "".join(
            not_numbers_mark(len([*steps]))
            if nothing
            else "".join(token.text for step in steps if (token := step.lanes[lane]))
            for nothing, steps in self.runs(lane)
        )

    def runs(self, lane: int) -> Iterator[tuple[bool, Iterator[Step]]]:
        """Runs of steps at which the lane chose nothing (true), or chose or had ended (false)."""
        return itertools.groupby(self.steps, lambda step: chose_nothing(step, lane))


def _took(step: Step, tokens: dict[int, int]) -> bool:
    """Whether these lanes took these tokens, and no other lane was forced."""
    return all(
        token is not None and token.token == tokens[lane] and not chose_nothing(step, lane)
        if lane in tokens
        else token is None or not token.forced
        for lane, token in enumerate(step.lanes)
    )


def _read_alike(a: Step, b: Step) -> bool:
    """Whether all lanes read the same after two steps."""
    return a is b or all(
        one is other or (one is not None and other is not None and one.token == other.token)
        for one, other in zip(a.lanes, b.lanes, strict=True)
    )
