"""Keys of the list of sessions."""

from textual.binding import Binding

from ..widgets.key_line import Key

SESSION_KEYS = [
    Key(
        "enter",
        "replay",
        "replay",
        key_display="⏎",
        tooltip="Replay the newest trace of the session that has steps",
        noun="Replay",
        keywords="open load trace",
    ),
    Key(
        "r",
        "resume",
        "resume",
        tooltip="Load the model and decode on from the end of the trace",
        noun="Resume",
        keywords="continue open live decode",
    ),
    Key(
        "right",
        "unfold",
        "its traces",
        key_display="→",
        tooltip="List the traces of the session: a new prompt, context or set of lanes begins one",
        noun="Traces",
        keywords="unfold expand",
    ),
    Key("left", "fold", show=False, key_display="←", tooltip="Hide its traces", noun="Fold"),
    Key(
        "slash",
        "filter",
        "filter",
        key_display="/",
        tooltip="List only the sessions whose model, prompt, lanes, date or name has these words",
        noun="Filter",
        keywords="search find",
    ),
    Key(
        "d,delete",
        "delete",
        "delete",
        key_display="d",
        tooltip="Delete the session's files",
        noun="Deletion",
        keywords="delete remove erase",
    ),
]

QUIT = Binding("q,o", "leave", "quit", key_display="q")
