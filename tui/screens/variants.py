"""Editor of the variants: which lanes there are, and what each of them drops."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Input, Label

from ...engine.errors import UserError
from ...engine.model.dropped import Dropped
from ...engine.trace.printable import visible
from ...engine.trace.records import Header
from ...engine.variants.pruning.ranking import Similarity, known_drops, least_important
from ...engine.variants.recipe_edits import with_drops
from ...engine.variants.recipes import Checkpoint, Drop, Kind, Recipe, parse
from ..session_thread import SessionThread
from ..widgets.fields import TextField
from ..widgets.key_line import KeyLine
from ..widgets.lane_list import LaneLine, LaneList
from ..widgets.model_map import MapContent, ModelMap
from .ask import AskDialog, ConfirmDialog
from .dialog import UpperScreen
from .edit_history import EditHistory
from .variant_keys import KEYS
from .variant_notes import BASELINE, HINT, NOT_MEASURED, NOT_YET, note_of, recipe_of


class VariantEditor(UpperScreen[None]):
    """Screen that edits recipes and applies them by a callback; its opener reports the outcome.

    What is applied or measured can be cancelled by another callback; the edits stay.
    """

    BINDINGS: ClassVar[list[BindingType]] = [*KEYS]
    AUTO_FOCUS = "ModelMap"

    def __init__(
        self,
        header: Header,
        lane: int,
        apply: Callable[[Sequence[str]], object],
        cancel: Callable[[], object],
    ) -> None:
        """Raises `UserError` if a lane's recipe no longer parses, as with a path that is gone."""
        super().__init__()
        self.waiting = False
        self._header = header
        self._apply = apply
        self._cancel = cancel
        self._applied = {lane.recipe: lane for lane in header.lanes[1:]}
        self._recipes = [recipe_of(lane) for lane in header.lanes[1:]]
        self._original_recipes = [*self._recipes]
        self._lane = min(lane, len(self._recipes))
        self._text = ""
        """Text of the recipe field, which need not parse."""
        self._history = EditHistory[tuple[list[Recipe], int, str]]()
        """Recipes, selected lane and text before each edit."""
        self._similarity: Similarity | None = None
        self._unmeasured = ""
        self._busy = ""
        self._problem = ""
        self._notice = ""
        """Sentence in place of the hint, until the next key."""
        self._digits = ""

    def compose(self) -> ComposeResult:
        yield LaneList(id="lane-list")
        yield ModelMap(id="model-map")
        with Horizontal(id="recipe-line"):
            yield Label("recipe", id="recipe-label")
            yield TextField(id="recipe", compact=True)
        yield Label("", id="variants-problem")
        yield KeyLine(KEYS)

    def on_mount(self) -> None:
        self._select(self._lane)

    # -- for the opener -----------------------------------------------------------------------

    def show_work(self, thread: SessionThread, work: str) -> None:
        """Show the measured importance, why there is none, and what the session is doing."""
        state = (thread.importance, thread.importance_error, work)
        if state != (self._similarity, self._unmeasured, self._busy):
            self._similarity, self._unmeasured, self._busy = state
            # Not before the screen is composed, which draws it, nor when it has been left.
            if self.query(LaneList):
                self._draw()

    def show_refusal(self, sentence: str) -> None:
        """Show why the recipes were not applied."""
        self.waiting = False
        self._say(sentence)

    def show_cancelled(self) -> None:
        """Show that what was being done has been cancelled."""
        self.waiting = False
        self._say("")
        self._notice = "Cancelled: the lanes are as they were, and your edits are still here."
        self._draw()

    def leave_trace(self) -> None:
        """Close, if the other trace is what was asked for."""
        if self.waiting:
            self.dismiss()

    # -- the lanes ----------------------------------------------------------------------------

    @on(LaneList.Picked)
    def _pick(self, event: LaneList.Picked) -> None:
        if self._text != self._selected_text:
            # It does not parse, and would be lost with another lane's in the field.
            self._remember()
        self._select(event.lane)

    def _select(self, lane: int) -> None:
        self._lane = lane
        self._say("")
        self._show_recipe()

    @work
    async def action_new(self) -> None:
        if self.waiting:
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
            self._remember()
            self._recipes.insert(self._lane, recipe)
            self._select(self._lane + 1)

    def action_remove(self) -> None:
        if self._may_edit():
            self._remember()
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

    def action_undo(self) -> None:
        """Go back to before the last edit."""
        if self.waiting:
            return
        before = self._history.pop()
        if before is None:
            self._say("There is nothing to undo.")
            return
        self._recipes, lane, text = before
        self._select(lane)
        if text != self._text:
            self._write(text)

    def action_carry(self, by: int) -> None:
        """Move the lane; the baseline stays lane 0."""
        to = self._lane + by
        if self._may_edit() and 1 <= to <= len(self._recipes):
            self._remember()
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
            self._say(NOT_YET if self._busy else NOT_MEASURED)
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
        if not self._lane or event.value == self._text:
            return
        self._remember(typing=True)
        self._text = event.value
        self._parse_text()

    def _parse_text(self) -> None:
        recipe = self._recipes[self._lane - 1]
        try:
            read = parse(self._text.strip())
        except UserError as error:
            self._say(str(error))
            return
        name = read.given_name or recipe.given_name
        self._recipes[self._lane - 1] = dataclasses.replace(read, given_name=name)
        self._say("")

    @on(Input.Submitted, "#recipe")
    def _to_the_map(self) -> None:
        self.query_one(ModelMap).focus()

    @property
    def _selected_text(self) -> str:
        """Text of the selected lane's recipe, as the field shows it."""
        return visible(self._recipes[self._lane - 1].text) if self._lane else ""

    def _show_recipe(self) -> None:
        self._write(self._selected_text)

    def _write(self, text: str) -> None:
        """Put text into the field; if it does not parse, say so."""
        field = self.query_one("#recipe", Input)
        self._text = text
        with field.prevent(Input.Changed):
            field.value = text
        field.disabled = not self._lane
        if text != self._selected_text:
            self._parse_text()

    def _remember(self, *, typing: bool = False) -> None:
        """Keep the state before an edit, to undo it."""
        self._history.push(([*self._recipes], self._lane, self._text), typing=typing)

    def _edit(self, recipe: Recipe) -> None:
        self._remember()
        self._recipes[self._lane - 1] = recipe
        self._show_recipe()
        self._say("")

    def _may_edit(self) -> bool:
        if not self._lane:
            self._say(BASELINE)
        return bool(self._lane) and not self.waiting

    # -- the end ------------------------------------------------------------------------------

    def action_apply(self) -> None:
        if self.waiting:
            return
        if self._lane:
            try:
                parse(self._text.strip())
            except UserError as error:
                self._say(str(error))
                return
        if self._recipes == self._original_recipes:
            self.dismiss()
            return
        self.waiting = True
        self._say("")
        self._apply([str(recipe) for recipe in self._recipes])

    def action_leave(self) -> None:
        """Discard the typed digits, cancel what is being done, or leave, in this order."""
        if self._digits:
            self._digits = ""
            self._say("")
        elif self._busy or self.waiting:
            self._cancel()
        elif (self._recipes, self._text) == (self._original_recipes, self._selected_text):
            self.dismiss()
        else:
            dialog = ConfirmDialog("Discard the edits?", "The lanes stay as they are.", "Discard")
            self.app.push_screen(dialog, self._leave_if)

    def _leave_if(self, discarded: bool | None) -> None:
        if discarded:
            self.dismiss()

    # -- drawing ------------------------------------------------------------------------------

    def _say(self, problem: str) -> None:
        self._problem, self._notice = problem, ""
        self._draw()

    def _draw(self) -> None:
        lanes = [LaneLine("baseline", "the model as it is", "")]
        lanes += [LaneLine(r.name, r.text, self._note(r)) for r in self._recipes]
        room = max(4, self.app.size.height // 4)
        self.query_one(LaneList).styles.height = min(len(lanes), room) + 1
        self.query_one(LaneList).show(lanes, self._lane)
        self.query_one(ModelMap).show(self._map_content())
        busy = f"… {self._busy or 'applying'}" if self.waiting else ""
        label = self.query_one("#variants-problem", Label)
        label.update(Content(visible(busy or self._problem or self._notice or HINT)))
        label.set_class(bool(self._problem and not busy), "problem")

    def _note(self, recipe: Recipe) -> str:
        edited, applied = recipe not in self._original_recipes, self._applied.get(recipe.text)
        return note_of(recipe, self._drops_of(recipe), applied, edited=edited)

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
