"""Where texts collapse into repetition: made texts, the demo's lanes, and the formulas."""

import json
import random
import zlib
from pathlib import Path

import msgspec
import pytest
from prunetui.engine.trace.analysis.breakpoints import parse_breakpoint
from prunetui.engine.trace.analysis.collapse import (
    WINDOW,
    Collapse,
    collapse_start,
    compression_ratio,
    distinct_share,
    find_collapse,
    lane_collapse,
    repeated_share,
    shares_at,
    text_collapse,
    windowed_shares,
)
from prunetui.engine.trace.divergence import chosen_tokens
from prunetui.engine.trace.export.html import to_html
from prunetui.engine.trace.export.markdown import to_markdown
from prunetui.engine.trace.records import Step

from ..support.traces import make_header, make_step, make_trace

DATA = json.loads((Path(__file__).parents[1] / "data" / "collapse.json").read_text())
"""Made texts, and what the demo's default lanes write on its default prompt with end tokens
ignored: tokens of the demo's tokenizer."""
LANES: dict[str, list[int]] = DATA["demo"]

PROSE = [*range(1000, 1200)]


def repeating(share: float, length: int = 400) -> list[int]:
    """Tokens whose windowed seq-rep-4 is near a share, once the window is full of them."""
    period = round((1 - share) * (WINDOW - 3))
    return [*range(period)] * (length // period)


def lanes_choosing(*texts: list[int]) -> list[Step]:
    """Steps at which the lanes choose these tokens, until each has ended."""
    steps = [make_step(number) for number in range(max(map(len, texts)))]
    for number, step in enumerate(steps):
        lanes = [
            msgspec.structs.replace(token, token=text[number]) if number < len(text) else None
            for token, text in zip(step.lanes, texts, strict=True)
            if token
        ]
        steps[number] = msgspec.structs.replace(step, lanes=lanes)
    return steps


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("prose", None),
        ("list", None),
        ("list of sentences", None),
        ("numbers", None),
        ("table", None),
        ("poem with a refrain", None),
        ("code", None),
        ("json", None),
        # After 35 tokens of prose.
        ("one word", 35),
        ("two words", 35),
        ("a sentence", 35),
        ("two sentences", 35),
        ("noise in every tenth word", 35),
        ("two words at random", 35),
        # The prose before is the beginning of the paragraph.
        ("a paragraph", 1),
        # Until there it is under the level now and then.
        ("noise in every fourth word", 185),
    ],
)
def test_made_texts_collapse_where_their_repetition_begins(text: str, start: int | None) -> None:
    assert collapse_start(DATA["texts"][text]["tokens"]) == start


@pytest.mark.parametrize(
    ("lane", "start", "known"),
    [
        ("baseline", None, None),
        ("drop:attn=4", None, None),
        # What it writes after its answer, which ends before step 60: a question again and again.
        ("drop:attn=8", 60, 136),
        ("drop:mlp=8", 26, 103),
    ],
)
def test_the_demos_lanes(lane: str, start: int | None, known: int | None) -> None:
    tokens, baseline = LANES[lane], LANES["baseline"] if lane != "baseline" else []
    by_length = [
        collapse_start(tokens[:length], baseline[:length]) for length in range(len(tokens) + 1)
    ]
    assert by_length[-1] == start
    first = next((length for length, at in enumerate(by_length) if at is not None), None)
    assert first == known
    assert {*by_length[known:]} == {start}


def test_a_repetition_begins_at_its_first_token() -> None:
    for period in (1, 2, 3, 10, 24, 40):
        for before in (0, 1, 17, 100):
            text = PROSE[:before] + [*range(period)] * (200 // period + 1)
            assert collapse_start(text) == before, (period, before)


def test_a_text_that_goes_on_has_not_collapsed_and_one_that_grows_has() -> None:
    loop = [7, 8, 9] * 40
    assert collapse_start([*PROSE[:50], *loop, *PROSE[50:90]]) == 50
    assert collapse_start([*PROSE[:50], *loop, *PROSE[50:100]]) is None
    assert collapse_start([*PROSE[:50], *loop, *PROSE[50:100], *loop]) == 220
    assert collapse_start([7] * 23) is None
    assert collapse_start([7] * 24) == 0


def test_a_lane_is_compared_with_the_baseline() -> None:
    a_list, loop, refrain = repeating(0.4), repeating(0.95), repeating(0.6)
    assert collapse_start(refrain) == 0
    # It lists or has a refrain as the baseline has, or little more.
    for baseline in (a_list, refrain, loop):
        of = text_collapse(refrain, baseline)
        assert (of.start, of.as_baseline) == (None, True)
    assert text_collapse(loop, a_list).start == 0
    assert not text_collapse(loop, a_list).as_baseline
    assert not text_collapse(a_list, loop).as_baseline
    # What the baseline does later, or did before, changes nothing.
    assert collapse_start(loop, [*PROSE, *loop]) == 0
    assert collapse_start([*PROSE, *loop], [*loop[:100], *PROSE]) == 200
    # One that has ended counts as it ended.
    assert collapse_start([*PROSE, *refrain], refrain[:100]) is None
    assert collapse_start([*PROSE, *refrain], PROSE[:10]) == 200
    # Where the baseline goes on and the lane does not.
    assert collapse_start(refrain, [*refrain[:200], *PROSE]) is not None


def test_the_measures_are_their_formulas() -> None:
    for seed in range(40):
        rng = random.Random(seed)
        tokens = [rng.randrange(rng.choice([1, 2, 4])) for _ in range(rng.choice([0, 3, 4, 200]))]
        for end, share in enumerate(windowed_shares(tokens), start=1):
            window = tokens[max(0, end - WINDOW) : end]
            ngrams = [tuple(window[n : n + 4]) for n in range(len(window) - 3)]
            expected = 1 - len({*ngrams}) / len(ngrams) if ngrams else 0
            assert (share, repeated_share(window)) == (expected, expected)
    assert repeated_share([5, 5, 5, 5, 5]) == 0.5
    assert distinct_share([1, 2, 1, 2, 1], 2) == 2 / 5
    assert distinct_share([1, 2, 1, 2, 1], 1) == 2 / 5
    assert distinct_share([], 2) is None
    text = "né " * 100
    assert compression_ratio(text) == 400 / len(zlib.compress(text.encode()))
    assert compression_ratio("\ud800") is not None
    assert compression_ratio("") is None


def test_a_trace_has_the_collapse_of_its_tokens() -> None:
    texts = [PROSE[:60], LANES["drop:mlp=8"], [*PROSE[:150], *[3] * 20]]
    steps = lanes_choosing(*texts)
    assert [chosen_tokens(steps, lane) for lane in range(3)] == texts
    assert [find_collapse(steps, lane) for lane in range(3)] == [None, 26, None]
    for lane, text in enumerate(texts):
        shares = [*windowed_shares(text)]
        expected = [shares[min(number, len(text) - 1)] for number in range(256)]
        for numbers in (range(256), range(58, 63), range(200, 201), range(169, 170), range(0)):
            assert shares_at(steps, numbers, lane) == expected[numbers.start : numbers.stop]


def test_playing_stops_where_a_lane_has_collapsed() -> None:
    texts = [LANES["baseline"], LANES["drop:attn=8"], LANES["drop:mlp=8"][:200]]
    steps = lanes_choosing(*texts)
    header = make_header()
    for condition, lanes in (("lane 2 collapses", [2]), ("collapses", [0, 1, 2])):
        stop = parse_breakpoint(condition, header)
        for number in range(256):
            seen = steps[: number + 1]
            # A lane that has ended repeats nothing any more.
            expected = any(
                seen[-1].lanes[lane] and find_collapse(seen, lane) is not None for lane in lanes
            )
            assert bool(stop.hit(steps, number)) == expected, (condition, number)
    share, baseline = (repeated_share(text[136 - WINDOW : 136]) for text in (texts[1], texts[0]))
    assert parse_breakpoint("lane 1 collapses", header).hit(steps, 135) == (
        f"drop:attn=1 collapses: {share:.0%} of its last 96 tokens' 4-grams repeat, "
        f"{baseline:.0%} of the baseline's"
    )
    both = lanes_choosing([*PROSE[:30], *[3] * 100], [3] * 130, [3] * 130)
    assert parse_breakpoint("lane 0 collapses", header).hit(both, 129) == (
        f"baseline collapses: {repeated_share([*[3] * 96]):.0%} of its last 96 tokens' 4-grams "
        "repeat"
    )
    assert parse_breakpoint("lane 1 collapses", header).hit(both, 129) == ""


def test_reports_say_where_the_baseline_repeats_itself_too() -> None:
    """The made-up baseline comes round every 12 tokens, as lane 2 does; lane 1 says one word."""
    trace = make_trace(140)
    trace.steps = lanes_choosing(
        [token % 12 for token in range(140)], [3] * 140, [token % 12 for token in range(140)]
    )
    start = find_collapse(trace.steps, 0)
    assert start == 0
    assert [lane_collapse(trace.steps, lane) for lane in (1, 2)] == [
        Collapse(0, as_baseline=False),
        Collapse(None, as_baseline=True),
    ]
    markdown, page = to_markdown(trace), to_html(trace)
    assert "| `drop:mlp=1` | – | 0.0% | baseline too |" in markdown
    assert "| `drop:attn=1` | 0 | 91.4% | 0 |" in markdown
    assert "The baseline's own text ends in repetition, which begins at step 0." in markdown
    assert "ends in repetition, which begins" not in to_markdown(make_trace(10))
    assert "<td>baseline too</td>" in page
    assert "<td>collapse step (0)</td>" in page
    share = f"{repeated_share([*range(12)] * 8):.1%}"
    assert f"<td>seq-rep-4 ({share})</td>" in page
    assert f"<td>{share}</td>" in page
