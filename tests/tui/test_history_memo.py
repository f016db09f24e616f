"""A value derived from steps is rebuilt for other steps or another key, and only then."""

from prunetui.tui.history_memo import HistoryMemo

from ..support.traces import make_trace


def test_a_growing_value_lasts_while_its_history_grows() -> None:
    trace, memo = make_trace(3), HistoryMemo[list[str]]()
    value = memo.growing(trace.steps, "key", list)
    trace.steps.append(trace.steps[-1])
    assert memo.growing(trace.steps, "key", list) is value
    assert memo.growing(trace.steps, "another", list) is not value


def test_an_equal_list_is_another_history() -> None:
    steps, memo = make_trace(3).steps, HistoryMemo[list[str]]()
    value = memo.growing(steps, "key", list)
    assert memo.growing([*steps], "key", list) is not value
    assert memo.growing(steps, "key", list) is not value


def test_a_computed_value_has_every_step() -> None:
    steps, memo = make_trace(3).steps, HistoryMemo[int]()
    counts = []
    for _ in range(2):
        counts += [memo.computed(steps, "key", len), memo.computed(steps, "key", lambda _: -1)]
        steps.append(steps[-1])
    assert counts == [3, 3, 4, 4]
    assert memo.computed(steps, "another", lambda _: -1) == -1
    assert memo.computed([*steps], "another", len) == 5


def test_a_computed_value_may_lack_the_newest_steps() -> None:
    steps, memo = make_trace(3).steps, HistoryMemo[int]()
    counts = []
    for _ in range(5):
        counts.append(memo.computed(steps, "key", len, most_missing=2))
        assert memo.step_count == counts[-1]
        steps.append(steps[-1])
    assert counts == [3, 3, 3, 6, 6]
    assert memo.computed(steps, "key", len) == 8


def test_a_value_is_computed_from_a_copy() -> None:
    steps = make_trace(3).steps
    assert HistoryMemo[list]().computed(steps, "key", lambda given: given) is not steps
