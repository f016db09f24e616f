"""The list of keys of the main screen, for the key line, the help and the key map."""

from textual.binding import Binding

from ..views.base import InspectorView
from ..views.catalog import VIEWS

ALL_VIEWS = f"1-{len(VIEWS)}"
"""Display of the one key that stands for those of all views in the key line."""

SUSPEND = Binding(
    "ctrl+z",
    "app.suspend_process",
    "suspend",
    show=False,
    key_display="^z",
    tooltip="Back to the shell, whose fg comes back here",
    id="suspend",
)

KEYS = [
    Binding("space", "play", "play", tooltip="Decode on, or pause", id="play"),
    Binding(
        "right",
        "move(1)",
        "step",
        key_display="→",
        tooltip="One step on; at the live end, decode one",
        id="forward",
    ),
    Binding("left", "move(-1)", "back", key_display="←", tooltip="One step back", id="back"),
    Binding(
        "shift+right",
        "move(10)",
        "on 10",
        show=False,
        key_display="⇧→",
        tooltip="Ten steps on",
        id="forward-ten",
    ),
    Binding(
        "shift+left",
        "move(-10)",
        "back 10",
        show=False,
        key_display="⇧←",
        tooltip="Ten steps back",
        id="back-ten",
    ),
    Binding("home", "first", "first", show=False, tooltip="To the first step", id="first"),
    Binding(
        "end", "last", "last", show=False, tooltip="To the newest step, and follow it", id="last"
    ),
    Binding(
        "x",
        "run_on",
        "to ≠",
        tooltip="On to the next step at which the selected lane differs from the baseline",
        id="run-on",
    ),
    Binding("n", "divergent(1)", "next ≠", show=False, tooltip="To the next such step", id="next"),
    Binding(
        "N",
        "divergent(-1)",
        "previous ≠",
        show=False,
        tooltip="To the previous such step",
        id="previous",
    ),
    Binding("g", "go", "go to", show=False, tooltip="Go to a step", id="go"),
    Binding(
        "enter",
        "force",
        "force",
        key_display="⏎",
        tooltip="Force a token at the cursor and decode on from there",
        id="force",
    ),
    Binding("t", "branches", "branches", show=False, tooltip="The tree of branches", id="tree"),
    Binding(
        "b",
        "breakpoint",
        "break",
        show=False,
        tooltip="Stop playing when a condition holds",
        id="breakpoint",
    ),
    Binding(
        "up", "lane(-1)", "lane", key_display="↑", tooltip="Select the lane above", id="lane-up"
    ),
    Binding(
        "down", "lane(1)", "lane", key_display="↓", tooltip="Select the lane below", id="lane-down"
    ),
    *(
        Binding(
            str(number),
            f"view('{name}')",
            "views",
            show=number == 1,
            key_display=ALL_VIEWS if number == 1 else str(number),
            tooltip=tooltip,
            id=f"view-{name}",
        )
        for number, (name, _, tooltip) in enumerate(VIEWS, start=1)
    ),
    Binding(
        "0,escape", "view('overview')", "overview", show=False, tooltip="Overview", id="overview"
    ),
    Binding(
        "c",
        "toggle_context",
        "context",
        tooltip="Decode again in the next context: free, forced, both",
        id="context",
    ),
    Binding(
        "a", "answers", "answers", show=False, tooltip="Name other answers (view 4)", id="answers"
    ),
    Binding(
        "l",
        "lens",
        "lens",
        show=False,
        tooltip="Read the step through the logit lens (view 2); again: without the final norm",
        id="lens",
    ),
    Binding(
        "m",
        "mode",
        "drawing",
        show=False,
        tooltip="Draw the view another way (views 2, 3 and 5)",
        id="mode",
    ),
    Binding("pageup", "page(-1)", "up", show=False, tooltip="A page of layers up", id="page-up"),
    Binding(
        "pagedown", "page(1)", "down", show=False, tooltip="A page of layers down", id="page-down"
    ),
    Binding("p", "prompt", "prompt", tooltip="Edit the prompt and the sampling", id="prompt"),
    Binding(
        "v", "variants", "variants", tooltip="Edit the lanes, and what each drops", id="variants"
    ),
    Binding("r", "restart", "restart", tooltip="From the prompt again", id="restart"),
    Binding(
        "e",
        "export",
        "export",
        tooltip="Write the trace as a table, a report or JSON, or the screen as SVG",
        id="export",
    ),
    Binding(
        "y",
        "copy",
        "copy",
        show=False,
        tooltip="Copy the selected lane's text up to the cursor",
        id="copy",
    ),
    Binding(
        "question_mark", "help", "help", key_display="?", tooltip="Keys, marks, measures", id="help"
    ),
    SUSPEND,
    Binding("q", "app.quit", "quit", tooltip="Quit", id="quit"),
]


def view_keys(view: type[InspectorView]) -> list[Binding]:
    """Bindings that a view adds while it is chosen."""
    return [binding for binding in view.BINDINGS if isinstance(binding, Binding)]


def key_scopes() -> list[list[Binding]]:
    """Bindings active at the same time: one list for the overview, one for each view."""
    return [KEYS, *([*KEYS, *view_keys(view)] for _, view, _ in VIEWS)]
