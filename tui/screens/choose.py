"""Dialogs with a list: the token to force, the branch to go to."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Label, OptionList

from ...engine.errors import UserError
from ...engine.trace.printable import visible
from ...engine.trace.records import Step
from ...engine.trace.trace import Trace
from ..moment import Moment
from ..widgets.candidates import probability, quoted, ranked
from ..widgets.choices import Choices
from ..widgets.panel import shorten
from .dialog import Dialog

TEXT_CELLS = 32


@dataclass(frozen=True)
class Forced:
    tokens: dict[int, int]
    """Token of each lane that is to take one."""
    branch: int | None
    """Branch where they have taken them already."""


class ForceDialog(Dialog[Forced | None]):
    """Dialog that returns a token of the step's candidates and the lanes that are to take it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel", id="force-cancel"),
        Binding("a", "all", "in all lanes", id="force-all"),
    ]

    def __init__(
        self,
        moment: Moment,
        step: Step,
        token: int | None,
        branch_with: Callable[[dict[int, int]], int | None],
    ) -> None:
        """`token` is highlighted first, if it is among the candidates; else the top one is.

        `branch_with` is `Trace.branch_with` at the step.
        """
        super().__init__()
        self._branch_with = branch_with
        self._token = token
        self._moment = moment
        self._step = step
        self._lanes = [0, moment.lane] if moment.lane else [0]
        self._candidates = ranked(step, self._lanes, chosen_first=moment.step is not None)

    def compose(self) -> ComposeResult:
        names = [lane.name for lane in self._moment.header.lanes]
        probs = self._step.candidates.probs
        with Vertical(classes="dialog"):
            yield Label(
                Content(visible(f"Force a token at step {self._step.step}")),
                classes="dialog-title",
            )
            columns = "".join(f"  p {shorten(names[lane], 20)}" for lane in self._lanes)
            yield Label(Content(f"   {'token'.ljust(TEXT_CELLS)}{columns}"), classes="dialog-hint")
            yield Choices(
                *(
                    Content(
                        shorten(quoted(self._step.candidates.texts[index]), TEXT_CELLS).ljust(
                            TEXT_CELLS
                        )
                        + "".join(
                            f"  {probability(column[index] if (column := probs[lane]) else None)}"
                            + " " * (len(shorten(names[lane], 20)) - 2)
                            for lane in self._lanes
                        )
                    )
                    for index in self._candidates
                ),
                compact=True,
            )
            yield Label(
                "Decoding goes on from there, in a branch of its own."
                if self._moment.steps
                else "Decoding begins with it.",
                classes="dialog-hint",
            )
            yield Label("", classes="dialog-problem")
            with Horizontal(classes="dialog-buttons"):
                lane = shorten(names[self._moment.lane], 24)
                yield Button(Content(f"In {lane}  ⏎"), id="one", variant="primary", compact=True)
                yield Button("In all lanes  a", id="all", compact=True)
                yield Button("Cancel  esc", id="cancel", compact=True)

    def on_mount(self) -> None:
        choices = self.query_one(OptionList)
        tokens = [self._step.candidates.tokens[candidate] for candidate in self._candidates]
        if tokens:
            choices.highlighted = tokens.index(self._token) if self._token in tokens else 0
        choices.focus()

    @on(OptionList.OptionSelected)
    @on(Button.Pressed, "#one")
    def _force_one(self) -> None:
        self._force([self._moment.lane])

    @on(Button.Pressed, "#all")
    def action_all(self) -> None:
        self._force([number for number, token in enumerate(self._step.lanes) if token])

    def _force(self, lanes: list[int]) -> None:
        row = self.query_one(OptionList).highlighted
        if row is not None:
            tokens = dict.fromkeys(lanes, self._step.candidates.tokens[self._candidates[row]])
            try:
                branch = self._branch_with(tokens)
            except UserError as error:
                self.query_one(".dialog-problem", Label).update(Content(visible(f"{error}.")))
            else:
                self.dismiss(Forced(tokens, branch))

    @on(Button.Pressed, "#cancel")
    def action_cancel(self) -> None:
        self.dismiss(None)


class BranchesDialog(Dialog[int | None]):
    """Dialog with the tree of branches; returns the index of the one to go to."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel", id="branches-cancel"),
    ]

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace
        self._order = [*_depth_first(trace, 0, 0)]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label("Branches", classes="dialog-title")
            yield Choices(
                *(Content(_line(self._trace, branch, depth)) for branch, depth in self._order),
                compact=True,
            )
            with Horizontal(classes="dialog-buttons"):
                yield Button("Go there  ⏎", id="go", variant="primary", compact=True)
                yield Button("Cancel  esc", id="cancel", compact=True)

    def on_mount(self) -> None:
        choices = self.query_one(OptionList)
        choices.highlighted = [branch for branch, _ in self._order].index(self._trace.branch)
        choices.focus()

    @on(OptionList.OptionSelected)
    @on(Button.Pressed, "#go")
    def _go(self) -> None:
        row = self.query_one(OptionList).highlighted
        if row is not None:
            self.dismiss(self._order[row][0])

    @on(Button.Pressed, "#cancel")
    def action_cancel(self) -> None:
        self.dismiss(None)


def _depth_first(trace: Trace, branch: int, depth: int) -> Iterator[tuple[int, int]]:
    """Branches with their depths, each parent before its children in the order of their steps."""
    yield branch, depth
    children = [
        (origin.at, number)
        for number, origin in enumerate(trace.origins)
        if origin is not None and origin.parent == branch
    ]
    for _, child in sorted(children):
        yield from _depth_first(trace, child, depth + 1)


def _line(trace: Trace, branch: int, depth: int) -> str:
    steps, origin = trace.branches[branch], trace.origins[branch]
    here = "●" if branch == trace.branch else " "
    at, forced = _first_forced(trace, steps, origin.at if origin else 0)
    if origin is None:
        how = f"step {at}: {visible(forced)}" if forced else "as decoded"
        return f"{here} {how}, {len(steps)} steps"
    if not forced:
        # A branch that was rewound and decoded again may force nothing.
        at, forced = origin.at, "nothing forced" if origin.at < len(steps) else "taken back"
    return f"{here} {'  ' * (depth - 1)}└ step {at}: {visible(forced)}, {len(steps)} steps"


def _first_forced(trace: Trace, steps: list[Step], start: int) -> tuple[int, str]:
    """The first step from `start` on with a token that the user forced, and which tokens; an empty
    text if there is none."""
    for step in steps[start:]:
        taken = [
            (trace.lane_names[lane], token.text)
            for lane, token in enumerate(step.lanes)
            if token is not None and token.forced
        ]
        if taken:
            if len(taken) == len(step.lanes) and len({text for _, text in taken}) == 1:
                return step.step, f"all lanes {quoted(taken[0][1])}"
            return step.step, ", ".join(f"{name} {quoted(text)}" for name, text in taken)
    return start, ""
