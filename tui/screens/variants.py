"""Editor of the variants: which lanes there are, and what each of them drops."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Input, Label

from ...engine.errors import UserError
from ...engine.model.dropped import Dropped
from ...engine.trace.figures import share
from ...engine.trace.printable import visible
from ...engine.trace.records import Header, Lane
from ...engine.variants.pruning.ranking import (
    Similarity,
    known_drops,
    least_important,
)
from ...engine.variants.recipes import (
    Checkpoint,
    Drop,
    Kind,
    Pattern,
    Recipe,
    Sparsify,
    parse,
    with_drops,
)
from ..widgets.key_line import KeyLine
from ..widgets.lane_list import LaneLine, LaneList
from ..widgets.model_map import MapContent, ModelMap
from .ask import AskDialog
from .dialog import UpperScreen

HINT = "A number, then a, m, j or b, closes that many of the least important."
BASELINE = "The baseline is the model as it is; n adds a variant."

KEYS = [
    Binding("space", "gate", "gate", tooltip="Open or close the gate under the cursor", id="gate"),
    Binding("tab", "app.focus_next", "next part", key_display="⇥", id="next-part"),
    Binding("n", "new", "new", id="new-variant"),
    Binding("d,delete", "remove", "remove", key_display="d", id="remove-variant"),
    Binding("r", "rename", "rename", id="rename-variant"),
    Binding("shift+up", "carry(-1)", "up", key_display="⇧↑", id="variant-up"),
    Binding("shift+down", "carry(1)", "down", key_display="⇧↓", id="variant-down"),
    Binding("a", "least('attn')", "attention", show=False, id="least-attention"),
    Binding("m", "least('mlp')", "MLP", show=False, id="least-mlp"),
    Binding("j", "least('joint')", "joint", show=False, id="least-joint"),
    Binding("b", "least('block')", "blocks", show=False, id="least-blocks"),
    Binding("ctrl+r,enter", "apply", "apply", key_display="^r", id="apply-variants"),
    Binding("escape", "leave", "leave", id="leave-variants"),
]


class VariantEditor(UpperScreen[None]):
    """Screen that edits recipes and applies them by a callback; its opener reports the outcome."""

    BINDINGS: ClassVar[list[BindingType]] = [*KEYS]
    AUTO_FOCUS = "ModelMap"

    def __init__(self, header: Header, lane: int, apply: Callable[[Sequence[str]], object]) -> None:
        """Raises `UserError` if a lane's recipe no longer parses, as with a path that is gone."""
        super().__init__()
        self.applying = False
        self._header = header
        self._apply = apply
        self._applied = {lane.recipe: lane for lane in header.lanes[1:]}
        self._recipes = [_recipe(lane) for lane in header.lanes[1:]]
        self._original_recipes = [*self._recipes]
        self._lane = min(lane, len(self._recipes))
        self._similarity: Similarity | None = None
        self._unmeasured = ""
        self._busy = ""
        self._problem = ""
        self._digits = ""

    def compose(self) -> ComposeResult:
        yield LaneList(id="lane-list")
        yield ModelMap(id="model-map")
        with Horizontal(id="recipe-line"):
            yield Label("recipe", id="recipe-label")
            yield Input(id="recipe", compact=True)
        yield Label("", id="variants-problem")
        yield KeyLine(KEYS)

    def on_mount(self) -> None:
        self._select(self._lane)

    # -- for the opener -----------------------------------------------------------------------

    def show_state(self, similarity: Similarity | None, unmeasured: str, busy: str) -> None:
        """Show the measured importance, why there is none, and what the session is doing."""
        state = (similarity, unmeasured, busy)
        if state != (self._similarity, self._unmeasured, self._busy):
            self._similarity, self._unmeasured, self._busy = state
            # Not before the screen is composed, which draws it, nor when it has been left.
            if self.query(LaneList):
                self._draw()

    def show_refusal(self, sentence: str) -> None:
        """Show why the recipes were not applied."""
        self.applying = False
        self._say(sentence)

    # -- the lanes ----------------------------------------------------------------------------

    @on(LaneList.Picked)
    def _pick(self, event: LaneList.Picked) -> None:
        self._select(event.lane)

    def _select(self, lane: int) -> None:
        self._lane = lane
        self._say("")
        self._show_recipe()

    @work
    async def action_new(self) -> None:
        if self.applying:
            return
        recipe = await self.app.push_screen_wait(
            AskDialog(
                "A new variant",
                "drop:attn=4    drop:mlp=[25,26]    wanda:0.5    name=recipe    "
                "control is the whole model, to close gates in.",
                lambda text: parse(text.strip()),
                "control",
            )
        )
        if recipe is not None:
            self._recipes.insert(self._lane, recipe)
            self._select(self._lane + 1)

    def action_remove(self) -> None:
        if self._may_edit():
            del self._recipes[self._lane - 1]
            self._select(min(self._lane, len(self._recipes)))

    @work
    async def action_rename(self) -> None:
        if not self._may_edit():
            return
        recipe = self._recipes[self._lane - 1]

        def named(text: str) -> Recipe:
            if not text.strip():
                return dataclasses.replace(recipe, given_name="")
            return parse(f"{text.strip()}={recipe.text}")

        hint = "Letters, digits, _ - and . ; empty: the recipe is the name."
        renamed = await self.app.push_screen_wait(
            AskDialog("Rename the variant", hint, named, recipe.given_name)
        )
        if renamed is not None:
            self._edit(renamed)

    def action_carry(self, by: int) -> None:
        """Move the lane; the baseline stays lane 0."""
        to = self._lane + by
        if self._may_edit() and 1 <= to <= len(self._recipes):
            self._recipes.insert(to - 1, self._recipes.pop(self._lane - 1))
            self._select(to)

    # -- gates --------------------------------------------------------------------------------

    def action_gate(self) -> None:
        """Toggle the gate at the map's cursor, while another widget has the focus."""
        self.query_one(ModelMap).action_gate()

    @on(ModelMap.Toggled)
    def _toggle(self, event: ModelMap.Toggled) -> None:
        dropped = self._editable_drops()
        if dropped is not None:
            toggled = dropped.of(event.kind) ^ {event.layer}
            self._set_drops(dropped.with_layers(event.kind, toggled))

    def on_key(self, event: events.Key) -> None:
        """Collect the digits of how many sublayers to close; the next letter says which kind."""
        if event.character and event.character.isdecimal() and event.character.isascii():
            self._digits = (self._digits + event.character)[:4]
        elif event.key == "backspace" and self._digits:
            self._digits = self._digits[:-1]
        else:
            return
        event.stop()
        self._say("")

    def action_least(self, kind: Kind) -> None:
        """Close exactly the typed number of a kind: those least important to the baseline."""
        if not self._digits:
            self._say("Type a number first: 8a closes the 8 least important attention sublayers.")
            return
        count, self._digits = int(self._digits), ""
        dropped = self._editable_drops()
        if dropped is None:
            return
        if self._similarity is None:
            self._say("What matters least is not measured yet.")
            return
        part = Drop(kind, count)
        most = self._header.model.layers * (2 if kind == "joint" else 1)
        if count > most:
            self._say(f"There are {most} to close, and {count} are asked for.")
            return
        least = least_important(part, count, self._similarity, Dropped())
        for sublayer in part.sublayers:
            dropped = dropped.with_layers(sublayer, least.of(sublayer))
        self._set_drops(dropped)

    def _set_drops(self, dropped: Dropped) -> None:
        recipe = self._recipes[self._lane - 1]
        self._edit(with_drops(recipe, dropped))

    def _drops(self) -> Dropped | None:
        """Sublayers that the selected lane closes; None if only building it can tell."""
        return self._drops_of(self._recipes[self._lane - 1]) if self._lane else Dropped()

    def _drops_of(self, recipe: Recipe) -> Dropped | None:
        running = self._applied.get(recipe.text)
        if running is not None:
            attention, mlp = running.dropped_attention, running.dropped_mlp
            return Dropped(frozenset(attention), frozenset(mlp))
        return known_drops(recipe, self._similarity)

    def _editable_drops(self) -> Dropped | None:
        """Sublayers that the selected lane closes; None and a sentence if the map cannot edit."""
        if not self._may_edit():
            return None
        recipe, dropped = self._recipes[self._lane - 1], self._drops()
        if self._unmeasured:
            self._say("Only the text can be edited.")
        elif any(isinstance(part, Checkpoint) for part in recipe.parts):
            self._say("What a checkpoint drops is its own; add drops to the text.")
        elif dropped is None:
            self._say("What this closes is known once it is applied; until then, edit the text.")
        else:
            return dropped
        return None

    # -- the text -----------------------------------------------------------------------------

    @on(Input.Changed, "#recipe")
    def _read(self, event: Input.Changed) -> None:
        if not self._lane:
            return
        recipe = self._recipes[self._lane - 1]
        try:
            read = parse(event.value.strip())
        except UserError as error:
            self._say(str(error))
            return
        name = read.given_name or recipe.given_name
        self._recipes[self._lane - 1] = dataclasses.replace(read, given_name=name)
        self._say("")

    @on(Input.Submitted, "#recipe")
    def _to_the_map(self) -> None:
        self.query_one(ModelMap).focus()

    def _show_recipe(self) -> None:
        field = self.query_one("#recipe", Input)
        text = self._recipes[self._lane - 1].text if self._lane else ""
        with field.prevent(Input.Changed):
            field.value = visible(text)
        field.disabled = not self._lane

    def _edit(self, recipe: Recipe) -> None:
        self._recipes[self._lane - 1] = recipe
        self._show_recipe()
        self._say("")

    def _may_edit(self) -> bool:
        if not self._lane:
            self._say(BASELINE)
        return bool(self._lane) and not self.applying

    # -- the end ------------------------------------------------------------------------------

    def action_apply(self) -> None:
        if self.applying:
            return
        if self._lane:
            try:
                parse(self.query_one("#recipe", Input).value.strip())
            except UserError as error:
                self._say(str(error))
                return
        if self._recipes == self._original_recipes:
            self.dismiss()
            return
        self.applying = True
        self._say("")
        self._apply([str(recipe) for recipe in self._recipes])

    def action_leave(self) -> None:
        """Discard the typed digits, or leave if there are none."""
        if self._digits:
            self._digits = ""
            self._say("")
        else:
            self.dismiss()

    # -- drawing ------------------------------------------------------------------------------

    def _say(self, problem: str) -> None:
        self._problem = problem
        self._draw()

    def _draw(self) -> None:
        lanes = [LaneLine("baseline", "the model as it is", "")]
        lanes += [LaneLine(r.name, r.text, self._note(r)) for r in self._recipes]
        room = max(4, self.app.size.height // 4)
        self.query_one(LaneList).styles.height = min(len(lanes), room) + 1
        self.query_one(LaneList).show(lanes, self._lane)
        self.query_one(ModelMap).show(self._map_content())
        busy = f"… {self._busy or 'applying'}" if self.applying else ""
        label = self.query_one("#variants-problem", Label)
        label.update(Content(visible(busy or self._problem or HINT)))
        label.set_class(bool(self._problem and not busy), "problem")

    def _note(self, recipe: Recipe) -> str:
        dropped = self._drops_of(recipe)
        if dropped is None:
            return "known when applied"
        changes = _changes(recipe, dropped, self._applied.get(recipe.text))
        return changes if recipe in self._original_recipes else f"edited: {changes}"

    def _map_content(self) -> MapContent:
        depth = self._header.model.layers
        if self._unmeasured:
            sentence = f"There is no map: {self._unmeasured}."
            return MapContent(depth, notes=(sentence, "Edit the text."), shown=False)
        notes = []
        if self._digits:
            notes.append(
                f"close the {self._digits}▏least important:  a attention   m MLP   "
                "j of both   b whole layers"
            )
        elif self._lane:
            text_parts = [
                str(p) for p in self._recipes[self._lane - 1].parts if not isinstance(p, Drop)
            ]
            if text_parts:
                notes.append(f"kept as text: {', '.join(text_parts)}")
        if self._similarity is None and self._busy:
            notes.append(f"… {self._busy}")
        return MapContent(depth, self._similarity, self._drops(), tuple(notes))


def _changes(recipe: Recipe, dropped: Dropped, applied: Lane | None) -> str:
    """Clause on what a variant changes: `4 attn, 2 MLP closed, 50% of weights zero`."""
    counts = {"attn": len(dropped.attention), "MLP": len(dropped.mlp)}
    closed = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    changes = [f"{closed} closed"] if closed else []
    if applied is not None and applied.sparsity is not None:
        pattern = f" ({applied.pattern})" if applied.pattern else ""
        changes.append(f"{share(applied.sparsity)} of weights zero{pattern}")
    else:
        asked = [part.sparsity for part in recipe.parts if isinstance(part, Sparsify)]
        changes += [
            f"{zeros if isinstance(zeros, Pattern) else f'{100 * zeros:.4g}%'} of weights zero"
            for zeros in asked
        ]
    return ", ".join(changes) or "nothing changed"


def _recipe(lane: Lane) -> Recipe:
    """Recipe of a lane as it was typed, with its given name."""
    named = lane.name != lane.recipe
    return parse(f"{lane.name}={lane.recipe}" if named else str(lane.recipe))
