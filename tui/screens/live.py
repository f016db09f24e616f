"""Main screen on a session that decodes: the keys that command it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Unpack

from textual import work

from ...engine.errors import UserError
from ...engine.options import Context
from ...engine.session.changes import RestartChanges, changed_options
from ...engine.trace.blame import BlamedTokens, Causes
from ...engine.trace.divergence import differs
from ...engine.trace.printable import visible
from ...engine.trace.records import Sampling, Step
from ...engine.variants.recipes import Recipe
from ..moment import Moment
from ..widgets.loading import LoadingPanel
from .ask import AskDialog
from .blame import BlameCommands, BlameScreen
from .choose import ForceDialog
from .prompt import Decoding, PromptEditor
from .session_inspector import SessionInspector
from .variant_notes import recipe_of
from .variants import VariantEditor

NEXT_CONTEXT: dict[Context, Context] = {"free": "forced", "forced": "both", "both": "free"}


class LiveInspector(SessionInspector):
    """Inspector whose keys decode, force tokens and edit what is decoded."""

    def go_on(self) -> None:
        if not self._thread.playing:
            self._decode(self._thread.step)

    def action_play(self) -> None:
        if self._thread.playing:
            self._thread.pause()
        else:
            super().action_play()

    def play_on(self) -> None:
        self._decode(lambda: self._thread.play(self._stop_at_breakpoint))

    def _stop_at_breakpoint(self, steps: Sequence[Step]) -> str:
        stop = self.seeking.breakpoint
        return stop.hit(steps, len(steps) - 1) if stop else ""

    def run_to_divergence(self) -> None:
        lanes = self.compared_lanes()

        def stop(steps: Sequence[Step]) -> str:
            if any(differs(steps[-1], lane) for lane in lanes):
                return f"step {steps[-1].step} differs"
            return self._stop_at_breakpoint(steps)

        session = self._thread.session
        if session is not None and session.finished:
            self.tell(f"{self.no_divergence}, and nothing is left to decode: {session.finished}.")
            return
        self.follow()
        self._decode(lambda: self._thread.play(stop))

    @work
    async def action_force(self, token: int | None = None) -> None:
        if (trace := self.trace) is None:
            return
        moment = self.moment_of(trace)
        step = moment.step_or_preview
        if step is None:
            return
        branch_with = partial(trace.branch_with, step.step)
        forced = await self.app.push_screen_wait(ForceDialog(moment, step, token, branch_with))
        if forced is None:
            return
        self.alert = ""
        self.follow()
        if forced.branch is None:
            self._thread.force(step.step, forced.tokens)
        else:
            self.tell(f"Branch {forced.branch + 1} has that token at step {step.step} already.")
            self._cursor = step.step
            self._thread.switch(forced.branch)

    can_read = True

    def read_step(self, number: int) -> None:
        if self._thread.playing:
            # The newest step would be another before this one is read.
            self._cursor = number
        self._thread.read(number)

    def switch(self, branch: int) -> None:
        self._thread.switch(branch)

    def action_restart(self) -> None:
        if self._thread.session is not None:
            self._restart()
        elif self.query_one(LoadingPanel).problem:
            self._open_again()

    def action_toggle_context(self) -> None:
        if self.trace is not None:
            self._restart(context=NEXT_CONTEXT[self.trace.header.context])

    @work
    async def action_prompt(self) -> None:
        if self.trace is None and not (
            self.edits_unopened and self.query_one(LoadingPanel).problem
        ):
            return
        edited = await self.app.push_screen_wait(PromptEditor(self._decoding))
        if edited is None:
            return
        changes = RestartChanges(prompt=edited.prompt, sampling=edited.sampling, raw=edited.raw)
        if self._thread.session is not None:
            self._restart(**changes)
            return
        options = self._options
        self._options = changed_options(options, changes, templated=not options.raw)
        self._open_again()

    @property
    def _decoding(self) -> Decoding:
        """Prompt and sampling of the session as asked for last, or of the options if none has
        opened."""
        if self.trace is not None:
            header, asked = self.trace.header, self._unapplied
            return Decoding(
                asked.get("prompt", header.prompt.text),
                asked.get("raw", not header.prompt.chat_template),
                asked.get("sampling", header.sampling),
            )
        options = self._options
        fields = {name: getattr(options, name) for name in Sampling.__struct_fields__}
        return Decoding(options.prompt, options.raw, Sampling(**fields))

    @work
    async def action_variants(self) -> None:
        if self.trace is None:
            return
        try:
            editor = VariantEditor(
                self.trace.header, self.lane, self._thread.set_variants, self._cancel_work
            )
        except UserError as error:
            self._show_error(str(error))
            return
        self.alert = ""
        self.stop_playing()
        self._thread.measure_importance()
        self._upper = editor
        await self.app.push_screen_wait(editor)
        self._upper = None

    @work
    async def blame(self, moment: Moment) -> None:
        """Show a blame, which is measured; then go on with the lane that was made of it, if any."""
        header, lane = moment.header, moment.lane

        def apply(recipe: Recipe) -> None:
            recipes = [str(recipe_of(own)) for own in header.lanes[1:]]
            self._thread.set_variants([*recipes[:lane], str(recipe), *recipes[lane:]])

        def measure(tokens: BlamedTokens, what: Causes) -> None:
            self._thread.blame(moment.cursor, lane, tokens, what)

        self.alert = ""
        self._thread.pause()
        commands = BlameCommands(measure, apply, self._cancel_work)
        self._upper = screen = BlameScreen(moment, "baseline", commands)
        recipe = await self.app.push_screen_wait(screen)
        self._upper = None
        if recipe is not None and self.trace is not None:
            self._decode_with(recipe, is_new=self.trace.header is not header)

    def _decode_with(self, recipe: Recipe, *, is_new: bool) -> None:
        """Select the lane of a recipe; decode on if it is new, else say that it is there."""
        lanes = self.trace.header.lanes if self.trace else []
        lane = next((n for n, own in enumerate(lanes) if own.recipe == recipe.text), None)
        if lane is None:
            return
        self.select(lane)
        if is_new:
            self.play_on()
        else:
            self.tell(f"{lanes[lane].name} is a lane already, and selected now.")

    @work
    async def action_answers(self) -> None:
        if self.trace is None:
            return
        answers_now = self.trace.header.answers
        texts = self._unapplied.get("answers", answers_now.texts if answers_now else ())
        answers = await self.app.push_screen_wait(
            AskDialog(
                "Answers",
                "Texts of one token each, separated by commas; spaces count. "
                "Decoding begins again from the prompt.",
                lambda text: tuple(text.split(",")),
                ",".join(texts),
            )
        )
        if answers is not None:
            self._restart(answers=answers)

    def _restart(self, **changes: Unpack[RestartChanges]) -> None:
        self.alert = ""
        self.follow()
        self._unapplied |= changes
        self._thread.restart(**changes)

    def _decode(self, command: Callable[[], None]) -> None:
        session = self._thread.session
        if session is None or self.trace is None:
            return
        self.alert = ""
        if session.finished:
            self.notify(visible(f"Nothing is left to decode: {session.finished}."), markup=False)
        else:
            command()
