"""Keys of the screens of an evaluation: its table, and the items of a cell."""

from ..widgets.key_line import Key

HELP = Key(
    "question_mark",
    "help",
    "help",
    key_display="?",
    tooltip="Keys, marks, measures",
    noun="Help",
    keywords="keys marks measures glossary manual",
)

RESULTS_KEYS = [
    Key(
        "enter",
        "open",
        "items",
        key_display="⏎",
        tooltip="List the items of the cell under the cursor, those that changed first",
        noun="Items",
        keywords="open questions flips list",
    ),
    Key("up", "move(-1, 0)", "task", key_display="↑", tooltip="The task above", noun="Task above"),
    Key("down", "move(1, 0)", "task", key_display="↓", tooltip="The task below", noun="Task below"),
    Key(
        "left",
        "move(0, -1)",
        "lane",
        key_display="←",
        tooltip="The lane before",
        noun="Lane before",
    ),
    Key("right", "move(0, 1)", "lane", key_display="→", tooltip="The next lane", noun="Next lane"),
    HELP,
    Key("q", "app.quit", "quit", tooltip="Quit", noun="Quit", keywords="exit leave close end"),
]

ITEM_KEYS = [
    Key(
        "enter",
        "open",
        "open",
        key_display="⏎",
        tooltip="Load the model and open the item as a session on its own tokens",
        noun="Session",
        keywords="open inspect decode model live",
    ),
    Key(
        "left",
        "lane(-1)",
        "lane",
        key_display="←",
        tooltip="What the lane before makes of the items",
        noun="Lane before",
        keywords="previous variant",
    ),
    Key(
        "right",
        "lane(1)",
        "lane",
        key_display="→",
        tooltip="What the next lane makes of the items",
        noun="Next lane",
        keywords="variant",
    ),
    Key(
        "space",
        "turn_page(1)",
        "more text",
        tooltip="Page through the text of the selected item",
        noun="More text",
        keywords="page scroll down prompt",
    ),
    Key(
        "b",
        "turn_page(-1)",
        "less text",
        show=False,
        tooltip="Page back through the text of the selected item",
        noun="Text before",
        keywords="page scroll up back",
    ),
    Key(
        "f",
        "changes",
        "only ✗ ✓",
        tooltip="List only what is worse or better than the baseline; again: all",
        noun="Flips",
        keywords="flips changes wrong right only",
    ),
    Key(
        "slash",
        "filter",
        "filter",
        key_display="/",
        tooltip="List only the items whose question or answers have these words",
        noun="Filter",
        keywords="search find",
    ),
    HELP,
    Key(
        "q",
        "leave",
        "back",
        tooltip="Back to the table",
        noun="Back",
        keywords="leave close table results",
    ),
]
