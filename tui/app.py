"""The Textual application: themes, key map and sizes, which all screens share."""

import logging
import os
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import ClassVar

from rich.text import Text
from textual import events, on, work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.notifications import Notify, SeverityLevel
from textual.screen import Screen
from textual.theme import Theme
from textual.widgets._toast import ToastHolder

from ..engine.errors import UserError
from ..engine.options import Options
from ..engine.results.file import ResultsFollower
from ..engine.trace.printable import visible
from ..engine.trace.trace import Trace
from ..themes import DARK, load_themes
from .screens.blame import BlameScreen
from .screens.inspector import Inspector
from .screens.items import ItemsScreen
from .screens.keys import KEYS, PALETTE, SUSPEND
from .screens.listed_replay import ListedReplay
from .screens.live import LiveInspector
from .screens.palette import THEME, Palette
from .screens.replay import ReplayInspector
from .screens.results import ResultsScreen
from .screens.sessions import ResumeRequested, SessionsScreen
from .screens.terminal_size import is_too_small
from .session_port import OpenSession
from .session_thread import open_engine_session
from .type_ahead import TypeAhead
from .user.keymap import load_keys, rebind, with_first_key
from .user.log_file import log_file
from .user.recorded_sessions import sessions_directory
from .user.state_files import change_settings, read_settings
from .widgets.key_line import Key

log = logging.getLogger("prunetui")

KEYS_AT_ANY_SIZE = {"quit": "ctrl+q", "suspend": "ctrl+z"}
"""Ids of the bindings that work on too small a terminal, each with a key that works beside those
of the key map."""

WEB_FONTS = re.compile(r',\s*url\("https://[^"]*"\) format\("\w+"\)')
"""Sources in the style of Textual's screenshots that a browser would load from the network."""

QUIT_SECONDS = 5.0
"""Time within which a second ctrl+c quits."""

SEVERITY_GLYPHS: dict[SeverityLevel, str] = {"information": "", "warning": "! ", "error": "✗ "}
"""What a message begins with, by its severity."""


class InspectorApp(App[None], inherit_bindings=False):
    """Application with an inspector, live or replaying, or the list of sessions below all else."""

    TITLE = "prunetui"
    NOTIFICATION_TIMEOUT = 8.0
    # On every screen; in a text field, ctrl+z undoes instead.
    BINDINGS: ClassVar[list[BindingType]] = [
        SUSPEND,
        PALETTE,
        Binding("ctrl+q", "quit", show=False, priority=True),
    ]
    # Its own is opened by another action than Textual's.
    ENABLE_COMMAND_PALETTE = False
    CSS_PATH = "app.tcss"

    def __init__(self, make_screen: Callable[[], Screen[None]], theme: str | None) -> None:
        super().__init__()
        self.resume: Path | None = None
        """Trace of the session that the program shall go on with after this application."""
        self._too_small = False
        self._interrupted = -QUIT_SECONDS
        """`monotonic()` at the last ctrl+c."""
        self._make_screen = make_screen
        self.type_ahead = TypeAhead(self, self._dispatch_input)
        themes, self._problems = load_themes()
        for textual_theme in list(self.available_themes):
            self.unregister_theme(textual_theme)
        for own_theme in themes:
            self.register_theme(own_theme)
        try:
            saved_theme = read_settings().theme
        except UserError as problem:
            self._problems.append(problem)
            saved_theme = None
        name = theme or saved_theme or DARK
        if name not in self.available_themes:
            names = ", ".join(self.available_themes)
            self._problems.append(UserError(f"there is no theme {name}; there are {names}"))
            name = DARK
        self.theme = name
        try:
            self.keys = load_keys(KEYS)
        except UserError as problem:
            self._problems.append(problem)
            self.keys = {}

    def get_default_screen(self) -> Screen[None]:
        return self._make_screen()

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = True,
    ) -> None:
        text = f"{SEVERITY_GLYPHS[severity]}{message}"
        super().notify(text, title=title, severity=severity, timeout=timeout, markup=markup)

    @on(Notify)
    def _drop_information(self) -> None:
        """Remove the message on the screen, unless it is a warning or an error."""
        information = [n for n in self._notifications if n.severity == "information"]
        for notification in information:
            self._unnotify(notification)
        for screen in self.screen_stack if information else []:
            # Textual removes the text alone; what held it would still take a row.
            for holder in screen.query(ToastHolder):
                if holder.query("Toast.-information"):
                    holder.remove()

    async def on_event(self, event: events.Event) -> None:
        """Keep the events of too small a terminal from every screen, except keys that leave it.

        Dialogs would be laid out where nothing of them can be seen, down to a width of 0, which
        Textual's own widgets do not bear, and would take the key that quits for a letter.
        """
        if isinstance(event, events.Resize):
            self._too_small = is_too_small(event.size)
            for screen in self._screen_stacks.get(self._current_mode, []):
                if not self._too_small:
                    # Textual does so at its next frame, too late for what is shown again.
                    screen._screen_resized(event.size)
                screen.set_class(self._too_small, "too-small")
        elif isinstance(event, events.InputEvent | events.Paste) and not event.is_forwarded:
            self.type_ahead.put(event)
            return
        await super().on_event(event)

    async def _dispatch_input(self, event: events.Event) -> None:
        """Send an event of the keyboard or the mouse to the screen, if it is to get any."""
        if isinstance(event, events.Key):
            self._drop_information()
        try:
            if not self._too_small:
                await super().on_event(event)
            elif isinstance(event, events.Key):
                if event.key == "ctrl+c":
                    self._interrupt()
                for binding in KEYS:
                    if binding.id in KEYS_AT_ANY_SIZE:
                        keys = rebind(binding, self.keys).key.split(",")
                        if event.key in (*keys, KEYS_AT_ANY_SIZE[binding.id]):
                            await self.run_action(binding.action)
        except Exception as error:
            self._handle_exception(error)

    async def _check_bindings(self, key: str, priority: bool = False) -> bool:
        """Run the binding of a key, in dialogs too that which suspends, and ctrl+c unless it copies
        something new."""
        copied = self.clipboard
        if await super()._check_bindings(key, priority):
            # A field's text is selected from the start, and would be copied again and again.
            if key != "ctrl+c" or self.clipboard != copied:
                return True
        elif priority:
            return False
        elif self.screen.is_modal and key in rebind(SUSPEND, self.keys).key.split(","):
            self.action_suspend_process()
        if key == "ctrl+c":
            self._interrupt()
        return False

    def _interrupt(self) -> None:
        """Quit at the second ctrl+c."""
        now = monotonic()
        if now - self._interrupted < QUIT_SECONDS:
            self.exit()
        else:
            self._interrupted = now
            self.notify("Press ctrl+c again to quit.", timeout=QUIT_SECONDS, markup=False)

    def action_sessions(self) -> None:
        """Show the list of sessions on top of an inspector, or again below one that it opened."""
        if isinstance(self.screen, ListedReplay):
            self.screen.action_leave()
        elif isinstance(self.screen, Inspector):
            self.push_screen(SessionsScreen(sessions_directory(), self.screen))

    @on(ResumeRequested)
    def _exit_to_resume(self, event: ResumeRequested) -> None:
        self.resume = event.trace
        self.exit()

    def action_suspend_process(self) -> None:
        """Stop the process group, as a terminal does, until the shell continues it."""
        if os.getsid(os.getppid()) != os.getsid(0):
            self.notify("There is no shell here that could come back.", markup=False)
            return
        self._suspend_signal()
        # The whole group: a parent that waits for one stopped process alone would wait for ever.
        os.killpg(0, signal.SIGTSTP)

    def on_mount(self) -> None:
        self.set_keymap(self.keys)
        self.theme_changed_signal.subscribe(self, self._save_theme)
        # Textual resumes with an empty screen and draws only what changes from then on.
        self.app_resume_signal.subscribe(self, lambda _: self.refresh(layout=True))
        for problem in self._problems:
            self.notify(visible(str(problem)), severity="warning", markup=False)

    @work
    async def action_commands(self) -> None:
        """Ask for a command, and run it on the screen that is on top."""
        screen = self.screen
        commands: Sequence[Key] = []
        if isinstance(screen, Inspector):
            commands = [key for key in screen.keys if key.id not in screen.hidden_keys]
        elif isinstance(screen, SessionsScreen | ResultsScreen | ItemsScreen | BlameScreen):
            commands = screen.commands
        await self._choose_command(screen, Palette("Commands", [*commands, THEME]))

    @work
    async def action_themes(self) -> None:
        names = sorted(self.available_themes, key=lambda name: name != self.theme)
        themes = [Key("", f"app.theme({name!r})", noun=name) for name in names]
        await self._choose_command(self.screen, Palette("Theme", themes))

    def action_theme(self, name: str) -> None:
        self.theme = name

    async def _choose_command(self, screen: Screen[object], palette: Palette) -> None:
        if isinstance(screen, Palette):
            return
        command = await self.push_screen_wait(palette)
        if command is not None and screen in self.screen_stack:
            await screen.run_action(command.action)

    def _save_theme(self, theme: Theme) -> None:
        try:
            change_settings(theme=theme.name)
        except UserError as problem:
            self.notify(visible(str(problem)), severity="warning", markup=False)

    def get_key_display(self, binding: Binding) -> str:
        return super().get_key_display(with_first_key(rebind(binding, self.keys)))

    def export_screenshot(self, *, title: str | None = None, simplify: bool = False) -> str:
        """Return the screen as SVG that loads nothing and keeps leading blanks in librsvg too."""
        svg = super().export_screenshot(title=title, simplify=simplify)
        return WEB_FONTS.sub("", svg).replace("<svg ", '<svg xml:space="preserve" ', 1)

    def _fatal_error(self) -> None:
        # Textual's own traceback prints local variables, and prompts with them.
        log.error("the screen", exc_info=self._exception)
        sentence = f"something went wrong in prunetui itself; {log_file()} says what"
        self.panic(Text(f"prunetui: {visible(sentence)}"))


class PrunetuiApp(InspectorApp):
    """Application that decodes as `options` say and records to a new file, if one is named."""

    def __init__(
        self,
        options: Options,
        record_to: Path | None,
        *,
        theme: str | None = None,
        open_session: OpenSession = open_engine_session,
    ) -> None:
        super().__init__(lambda: LiveInspector(options, record_to, open_session), theme)

    @staticmethod
    def replay(trace: Trace, path: Path, *, theme: str | None = None) -> InspectorApp:
        """Return an application that shows a trace which was read from `path`."""
        return InspectorApp(lambda: ReplayInspector(trace, path), theme)

    @staticmethod
    def sessions(directory: Path, *, theme: str | None = None) -> InspectorApp:
        """Return an application that lists the sessions recorded in a directory."""
        return InspectorApp(lambda: SessionsScreen(directory), theme)

    @staticmethod
    def results(
        follower: ResultsFollower, open_session: OpenSession, *, theme: str | None = None
    ) -> InspectorApp:
        """Return an application that shows an evaluation file and opens its items."""
        return InspectorApp(lambda: ResultsScreen(follower, open_session), theme)
