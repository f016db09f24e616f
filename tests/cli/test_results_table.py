"""The table that `eval` prints, in terminals of any width."""

import io
import re
from pathlib import Path

import msgspec
import pytest
from prunetui.engine.results.comparison import compare
from prunetui.engine.results.records import Header, Task
from prunetui.engine.results.results import Results
from prunetui.engine.results.table import legend, notes, sections, title
from prunetui.tui.cli.output import _substitute
from prunetui.tui.cli.results_table import print_results, table_lines
from rich.cells import cell_len
from rich.console import Console

from ..support.evaluations import (
    ACC,
    ACC_NORM,
    VARIANTS,
    make_evaluation,
    make_evaluation_header,
    make_item,
    make_task,
)

LONG = "drop:attn=[0,2,4,6,8]+drop:mlp=[1,3,5]+wanda:0.5+sparsegpt:2:4"
WIDTHS = [40, 60, 80, 100, 120, 160]


def only(*tasks: str, variants: tuple[str, ...] = VARIANTS) -> Results:
    """The made-up evaluation with some of its tasks."""
    whole = make_evaluation(variants)
    header = msgspec.structs.replace(
        whole.header, tasks=[task for task in whole.header.tasks if task.name in tasks]
    )
    results = Results(header)
    for task in header.tasks:
        results.items[task.name] = whole.items[task.name]
        results.ends[task.name] = whole.ends[task.name]
    return results


def printed(results: Results, width: int, *, styled: bool = False) -> str:
    file = io.StringIO()
    # As `record` makes its console: a paragraph is wrapped all the same.
    console = Console(file=file, width=width, soft_wrap=True, force_terminal=styled)
    print_results(console, results)
    return file.getvalue()


AT_80 = """\
tiny · float32 · batch size 8 · noise floor 0.0500 nats · 1 of 3 tasks complete
Note: A note with [markup].

mmlu · acc ↑ · 7 of 9 items so far, of 17 · 2 tasks · 5-shot
                score ± se  Δ          95% of Δ  p  ✗  ✓
baseline     0.429 ± 0.207  –                 –  –  –  –
drop:attn=4  0.429 ± 0.207  0  [-0.343, +0.343]  1  1  1
drop:mlp=8   0.429 ± 0.207  0  [-0.686, +0.514]  1  2  2
control      0.429 ± 0.207  0                 –  1  0  0
              agree     KL  KL opt.   cos h   cos z   cos p  ties
baseline          –      –        –       –       –       –     1
drop:attn=4   71.4%  0.548   0.0362  0.9269  0.9817  0.8904     1
drop:mlp=8    42.9%   2.49    0.700  0.6677  0.9169  0.5016     1
control      100.0%      0        0       1       1       1     1

gsm8k · exact_match,strict-match ↑ · 5 of 8 items so far, of 12 · 5-shot · 1
truncated on the left
                score ± se       Δ          95% of Δ      p  ✗  ✓
baseline     0.600 ± 0.245       –                 –      –  –  –
drop:attn=4  0.200 ± 0.200  -0.400       [-1.000, 0]  0.500  2  0
drop:mlp=8   0.000 ± 0.000  -0.600  [-1.000, -0.250]  0.250  3  0
control      0.600 ± 0.245       0                 –      1  0  0
              agree  items ≠  first ≠  collapse  KL local
baseline          –        –        –      0.0%         –
drop:attn=4   20.0%    80.0%        3      0.0%     0.104
drop:mlp=8     0.0%   100.0%        0    100.0%     0.520
control      100.0%     0.0%        –      0.0%         0
                KL   cos h   cos z   cos p
baseline         –       –       –       –
drop:attn=4  0.605  0.9194  0.9798  0.8791
drop:mlp=8    2.43  0.6753  0.9188  0.5130
control          0       1       1       1
exact_match,flexible-extract ↑
                score ± se       Δ     95% of Δ  p  ✗  ✓
baseline     0.800 ± 0.200       –            –  –  –  –
drop:attn=4  0.800 ± 0.200       0            –  1  0  0
drop:mlp=8   0.600 ± 0.245  -0.200  [-0.750, 0]  1  1  0
control      0.800 ± 0.200       0            –  1  0  0

± se: standard error of the mean over items; Δ: score less the baseline's on the
same items; 95%: paired bootstrap interval of Δ; p: chance of a Δ as far from 0
if lane and baseline scored alike (McNemar's exact test for scores of 0 and 1,
else sign flips); * p < .05, uncorrected for the number of tests; ✗ ✓: items
that the baseline has right and the lane wrong, and the reverse; agree: share of
items with the baseline's answer, right or wrong; KL: KL(p ‖ q) in nats, p
baseline, q lane, at the last token of the context; KL opt.: KL(p ‖ q) in nats
among the options, by their whole log probabilities; cos h, z, p: cosine
similarity of embedding, logits, probabilities there; ties: items whose two best
options are within the noise floor, in lane or baseline; items ≠: share of items
with a token that is not the baseline's; first ≠: median over items of the first
such step, – if fewer than half have one; collapse: share of items whose text
ends in repetition: 50% or more of the 4-grams of its last 96 tokens repeat
(seq-rep-4), 30 points above the baseline's; KL local: mean KL(p ‖ q) in nats
over the baseline's text, which both read; –: not defined; control: the baseline
again, whose row is the floor of the others.
"""

AT_120 = """\
tiny · float32 · batch size 8 · noise floor 0.0500 nats · 1 of 3 tasks complete
Note: A note with [markup].

mmlu · acc ↑ · 7 of 9 items so far, of 17 · 2 tasks · 5-shot
                score ± se  Δ          95% of Δ  p  ✗  ✓   agree     KL  KL opt.   cos h   cos z   cos p  ties
baseline     0.429 ± 0.207  –                 –  –  –  –       –      –        –       –       –       –     1
drop:attn=4  0.429 ± 0.207  0  [-0.343, +0.343]  1  1  1   71.4%  0.548   0.0362  0.9269  0.9817  0.8904     1
drop:mlp=8   0.429 ± 0.207  0  [-0.686, +0.514]  1  2  2   42.9%   2.49    0.700  0.6677  0.9169  0.5016     1
control      0.429 ± 0.207  0                 –  1  0  0  100.0%      0        0       1       1       1     1

gsm8k · exact_match,strict-match ↑ · 5 of 8 items so far, of 12 · 5-shot · 1 truncated on the left
                score ± se       Δ          95% of Δ      p  ✗  ✓   agree  items ≠  first ≠  collapse  KL local
baseline     0.600 ± 0.245       –                 –      –  –  –       –        –        –      0.0%         –
drop:attn=4  0.200 ± 0.200  -0.400       [-1.000, 0]  0.500  2  0   20.0%    80.0%        3      0.0%     0.104
drop:mlp=8   0.000 ± 0.000  -0.600  [-1.000, -0.250]  0.250  3  0    0.0%   100.0%        0    100.0%     0.520
control      0.600 ± 0.245       0                 –      1  0  0  100.0%     0.0%        –      0.0%         0
                KL   cos h   cos z   cos p
baseline         –       –       –       –
drop:attn=4  0.605  0.9194  0.9798  0.8791
drop:mlp=8    2.43  0.6753  0.9188  0.5130
control          0       1       1       1
exact_match,flexible-extract ↑
                score ± se       Δ     95% of Δ  p  ✗  ✓
baseline     0.800 ± 0.200       –            –  –  –  –
drop:attn=4  0.800 ± 0.200       0            –  1  0  0
drop:mlp=8   0.600 ± 0.245  -0.200  [-0.750, 0]  1  1  0
control      0.800 ± 0.200       0            –  1  0  0

± se: standard error of the mean over items; Δ: score less the baseline's on the same items; 95%: paired bootstrap
interval of Δ; p: chance of a Δ as far from 0 if lane and baseline scored alike (McNemar's exact test for scores of 0
and 1, else sign flips); * p < .05, uncorrected for the number of tests; ✗ ✓: items that the baseline has right and the
lane wrong, and the reverse; agree: share of items with the baseline's answer, right or wrong; KL: KL(p ‖ q) in nats, p
baseline, q lane, at the last token of the context; KL opt.: KL(p ‖ q) in nats among the options, by their whole log
probabilities; cos h, z, p: cosine similarity of embedding, logits, probabilities there; ties: items whose two best
options are within the noise floor, in lane or baseline; items ≠: share of items with a token that is not the
baseline's; first ≠: median over items of the first such step, – if fewer than half have one; collapse: share of items
whose text ends in repetition: 50% or more of the 4-grams of its last 96 tokens repeat (seq-rep-4), 30 points above the
baseline's; KL local: mean KL(p ‖ q) in nats over the baseline's text, which both read; –: not defined; control: the
baseline again, whose row is the floor of the others.
"""  # noqa: E501


def still_running() -> Results:
    results = only("mmlu_anatomy", "mmlu_virology", "gsm8k")
    del results.items["mmlu_virology"][1:], results.items["gsm8k"][5:]
    del results.ends["mmlu_virology"], results.ends["gsm8k"]
    return results


@pytest.mark.parametrize(("width", "text"), [(80, AT_80), (120, AT_120)], ids=["80", "120"])
def test_the_whole_text(width: int, text: str) -> None:
    lines = printed(still_running(), width).split("\n")
    assert [line.rstrip() for line in lines] == text.split("\n")


@pytest.mark.parametrize("width", [*WIDTHS, 67, 68, 121, 122])
@pytest.mark.parametrize("names", [VARIANTS, ("drop:attn=4", LONG), (LONG, "漢字の名前")])
def test_nothing_is_cut(width: int, names: tuple[str, ...]) -> None:
    for comparison in compare(make_evaluation(names)):
        lines = [line.plain for line in table_lines(comparison, width)]
        assert all(cell_len(line) <= width for line in lines if line not in names)
        drawn = re.sub(r"\s+", " ", " ".join(lines))
        assert "…" not in drawn
        for section in sections(comparison):
            for column in section.columns:
                assert column.head in drawn
                for cell in comparison.cells:
                    assert column.text(cell) in drawn
        for name in names:
            assert name in drawn


def test_figures_stand_below_their_heads() -> None:
    comparison = compare(only("additions"))[0]
    head, *rows = [line.plain for line in table_lines(comparison, 160)][:5]
    assert {len(row) for row in rows} == {len(head)}
    assert [row.split()[0] for row in rows] == ["baseline", *VARIANTS]
    for end in (match.end() for match in re.finditer(r"cos [hzp]|agree|✗|ties", head)):
        assert all(row[end - 1] != " " for row in rows)
        assert all(row[end : end + 1] in ("", " ") for row in rows)


def test_a_mark_hangs_behind_its_figure() -> None:
    task = make_task("many", "options", 120, [ACC])
    results = Results(make_evaluation_header([task]))
    results.items["many"] = [make_item(task, n) for n in range(120)]
    comparison = compare(results)[0]
    assert [bool(cell.main and cell.main.significant) for cell in comparison.cells] == [
        False,
        False,
        True,
        False,
    ]
    rows = [line.plain for line in table_lines(comparison, 80)][:5]
    assert [row[26:35] for row in rows] == [
        "       Δ ",
        "       – ",
        "  -0.025 ",
        "  -0.150*",
        "       0 ",
    ]
    styled = printed(results, 80, styled=True)
    assert "\x1b[1m-0.150*\x1b[0m" in styled
    assert "\x1b[1m0.367\x1b[0m\x1b[2m ± 0.044\x1b[0m" in styled


def test_hostile_names_are_shown_and_not_obeyed() -> None:
    hostile = "a\x1b[31m[/red]\nb"
    task = make_task(hostile, "options", 3, [ACC], notes=[hostile])
    results = Results(make_evaluation_header([task], (hostile,)))
    results.items[hostile] = [make_item(task, n, (hostile,)) for n in range(3)]
    results.header = renamed(results.header, hostile)
    text = printed(results, 120)
    assert "\x1b" not in text
    # Model, note of the header, task, lane, note of the task.
    assert text.count("a␛[31m[/red]⏎b") == 5


def renamed(header: Header, name: str) -> Header:
    model = msgspec.structs.replace(header.model, name=name)
    return msgspec.structs.replace(header, model=model, notes=[name])


def test_titles_say_what_is_there() -> None:
    titles = {c.name: title(c) for c in compare(make_evaluation())}
    assert titles["additions"] == ["additions", "acc ↑", "8 of 12 items", "0-shot"]
    assert titles["mmlu"] == ["mmlu", "acc ↑", "9 of 17 items", "2 tasks", "5-shot"]
    assert titles["prompts"] == ["prompts", "3 of 7 items"]
    assert titles["docstrings"] == ["docstrings", "ndcg_at_10 ↑", "7 of 11 items"]
    running = {c.name: title(c) for c in compare(still_running())}
    assert running["mmlu"][2] == "7 of 9 items so far, of 17"
    assert running["gsm8k"][1:] == [
        "exact_match,strict-match ↑",
        "5 of 8 items so far, of 12",
        "5-shot",
        "1 truncated on the left",
    ]
    whole = make_task("whole", "options", 3, [ACC])
    whole = msgspec.structs.replace(whole, total=3)
    assert title(compare(Results(make_evaluation_header([whole])))[0])[2] == "0 of 3 items so far"


def test_items_without_a_number_are_told() -> None:
    results = make_evaluation()
    item = results.items["gsm8k"][3]
    answers = [msgspec.structs.replace(a, scores={}, kl=None) for a in item.answers]
    results.items["gsm8k"][3] = msgspec.structs.replace(
        item, answers=answers[:2] + item.answers[2:]
    )
    told = {c.name: notes(c) for c in compare(results)}
    assert told["additions"] == [
        "drop:mlp=8: KL, cos z, cos p without 1 of 8 items, where there is no number."
    ]
    assert told["gsm8k"][:3] == [
        "baseline: exact_match,strict-match is over 7 of 8 items.",
        "baseline: exact_match,flexible-extract is over 7 of 8 items.",
        "drop:attn=4: exact_match,strict-match is over 7 of 8 items.",
    ]
    assert "drop:attn=4: KL local without 1 of 8 items, where there is no number." in told["gsm8k"]


def test_tasks_for_which_no_group_stands_are_printed() -> None:
    whole = make_evaluation()

    def names(first: Task, second: Task) -> list[str]:
        """Names of tasks of one group, of which some may be printed."""
        tasks = [msgspec.structs.replace(task, group="both") for task in (first, second)]
        header = msgspec.structs.replace(whole.header, tasks=tasks)
        text = printed(Results(header, whole.items, whole.ends), 120)
        return [line.partition(" · ")[0] for line in text.splitlines() if "-shot" in line]

    anatomy, additions, gsm8k = map(whole.task, ("mmlu_anatomy", "additions", "gsm8k"))
    assert names(anatomy, additions) == ["both"]
    # Of two kinds, and without a metric that both have.
    assert names(anatomy, gsm8k) == ["mmlu_anatomy", "gsm8k"]
    other = msgspec.structs.replace(additions, metrics=[ACC_NORM])
    assert {"mmlu_anatomy", "additions"} <= {*names(anatomy, other)}


def test_the_legend_explains_every_head_once() -> None:
    comparisons = compare(make_evaluation())
    clauses = legend(comparisons)
    assert len(set(clauses)) == len(clauses)
    heads = " ".join(clause.split(": ")[0] for clause in clauses)
    for comparison in comparisons:
        for section in sections(comparison):
            for column in section.columns:
                assert set(column.head.replace("score", "").replace(" of Δ", "").split()) <= set(
                    heads.replace(",", "").split()
                )
    # Nothing is explained that is not there.
    assert not any("KL local" in clause for clause in legend(compare(only("additions"))))
    assert not any("floor of" in clause for clause in legend(compare(only("gsm8k", variants=()))))


def test_every_sign_has_a_substitute_of_its_width(tmp_path: Path) -> None:
    text = printed(make_evaluation(("drop:attn=4",)), 100)
    assert {"±", "Δ", "✗", "✓", "↑", "↓", "·", "–"} <= set(text)
    path = tmp_path / "ascii"
    with path.open("w", encoding="ascii", errors=_substitute.__name__) as file:
        file.write(text)
    assert len(path.read_text("ascii")) == len(text)
