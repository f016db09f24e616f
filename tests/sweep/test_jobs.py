"""Jobs of a sweep: what shares a load, and keys that change with what decides the numbers."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.options import Options
from prunetui.engine.results.records import Settings
from prunetui.engine.sweep.grid import grid_recipes
from prunetui.engine.sweep.jobs import Job, plan
from prunetui.engine.trace.records import MAX_LANES


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_text("weights")
    return directory


def jobs_of(
    model: Path,
    *grids: str,
    seeds: tuple[int, ...] = (0,),
    tasks: tuple[str, ...] = ("boolq",),
    options: dict[str, Any] | None = None,
    **settings: Any,
) -> list[Job]:
    return plan(
        Options(model=str(model), **(options or {})),
        Settings(tasks=tasks, **settings),
        seeds,
        grid_recipes(grids),
    )


def shape(jobs: list[Job]) -> list[tuple[int, tuple[str, ...], tuple[str, ...]]]:
    return [
        (job.options.calibration_seed, job.settings.tasks, job.options.variants or ())
        for job in jobs
    ]


def test_what_only_drops_shares_a_load_and_changed_weights_have_their_own(model: Path) -> None:
    jobs = jobs_of(
        model,
        *("drop:attn={0..2}", "drop:mlp=1", "wanda:{0.3,0.5}", "wanda:0.5+drop:attn={1,2}"),
        *("drop:attn=1+wanda:0.5", "magnitude:0.5", "drop:attn=[0]"),
        seeds=(0, 7),
        tasks=("boolq", "rte"),
    )
    drops = ("control", "drop:attn=1", "drop:attn=2", "drop:mlp=1", "drop:attn=[0]")
    calibrated = ("drop:attn=1", "drop:attn=2", "drop:mlp=1")
    halved = ("wanda:0.5", "wanda:0.5+drop:attn=1", "wanda:0.5+drop:attn=2")
    groups = [
        (0, drops),
        (7, calibrated),
        *[(seed, recipes) for recipes in [("wanda:0.3",), halved] for seed in (0, 7)],
        *[(seed, ("drop:attn=1+wanda:0.5",)) for seed in (0, 7)],
        (0, ("magnitude:0.5",)),
    ]
    expected = [(seed, (task,), lanes) for seed, lanes in groups for task in ("boolq", "rte")]
    assert sorted(shape(jobs)) == sorted(expected)
    assert len({job.key for job in jobs}) == len(jobs)


def test_the_demos_tasks_are_one_job(model: Path) -> None:
    assert shape(jobs_of(model, "drop:attn=1", tasks=())) == [(0, (), ("drop:attn=1",))]


def test_more_lanes_than_a_file_holds_are_split(model: Path) -> None:
    grids = ["drop:attn={1..200}", "drop:mlp={1..100}"]
    counts = [len(job.options.variants or ()) for job in jobs_of(model, *grids)]
    assert counts == [MAX_LANES - 1, 300 - (MAX_LANES - 1)]


def key(model: Path, *grids: str, **changes: Any) -> str:
    (job,) = jobs_of(model, *(grids or ("drop:attn={1..3}",)), **changes)
    return job.key


def test_a_key_does_not_change_with_order_names_or_places(model: Path, tmp_path: Path) -> None:
    first = key(model)
    assert key(model) == first
    assert key(model, "drop:attn={3..1}") == first
    assert key(model, "drop:attn={1,2}", "mine=drop:attn=3") == first
    assert key(model, options={"threads": 3, "trust_remote_code": True}) == first
    moved = tmp_path / "moved"
    model.rename(moved)
    assert key(moved) == first
    assert key(moved, options={"device": "cuda:1"}) == key(moved, options={"device": "cuda:0"})
    # Lists of layers and magnitudes look at no calibration text.
    for recipe in ("drop:attn=[1]", "magnitude:0.5"):
        assert key(moved, recipe, seeds=(3,)) == key(moved, recipe, seeds=(0,))


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": (1,)},
        {"tasks": ("rte",)},
        {"limit": 5},
        {"num_fewshot": 2},
        {"seed": 2},
        {"batch_size": 2},
        {"apply_chat_template": True},
        {"options": {"dtype": "bfloat16"}},
        {"options": {"max_new_tokens": 9}},
        {"options": {"device": "cuda"}},
        {"options": {"calibration": "self"}},
        {"options": {"calibration_samples": 3}},
        {"options": {"calibration_length": 30}},
    ],
)
def test_a_key_changes_with_what_decides_the_numbers(model: Path, changes: Any) -> None:
    assert key(model, **changes) != key(model)


def test_a_key_changes_with_the_content_of_files(model: Path, tmp_path: Path) -> None:
    data, text, folder = tmp_path / "d.jsonl", tmp_path / "t.yaml", tmp_path / "beir"
    calibration, checkpoint = tmp_path / "c.txt", tmp_path / "pruned"
    for directory in (folder / "qrels", checkpoint):
        directory.mkdir(parents=True)
    qrels, config = folder / "qrels" / "test.tsv", checkpoint / "config.json"
    data.write_text("{}")
    text.write_text(f"task: mine\ndataset_kwargs: {{data_files: '{data}'}}\n")
    for file in (calibration, qrels, config):
        file.write_text("words of a text")
    weights = model / "model.safetensors"

    def keys() -> list[str]:
        return [
            key(model, f"{checkpoint}+drop:attn={{1,2}}", tasks=(task,), options=options)
            for task in (str(text), str(folder))
            for options in [{"calibration": str(calibration)}]
        ]

    first = keys()
    assert keys() == first
    for file, changed in [
        (data, [True, False]),
        (text, [True, False]),
        (qrels, [False, True]),
        (calibration, [True, True]),
        (config, [True, True]),
        (weights, [True, True]),
    ]:
        before = keys()
        file.write_text(file.read_text() + "# more")
        assert [old != new for old, new in zip(before, keys(), strict=True)] == changed, file
    before = keys()
    os.utime(weights, ns=(1, 1))
    assert not {*before} & {*keys()}


def test_a_grid_that_grows_keeps_its_base(model: Path) -> None:
    (few,), (many,) = jobs_of(model, "drop:attn={1..3}"), jobs_of(model, "drop:attn={1..5}")
    assert few.base == many.base
    assert few.key != many.key
    assert msgspec.json.decode(msgspec.json.encode(few), type=Job) == few


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no model at"):
        jobs_of(tmp_path / "none.gguf", "drop:attn=1")
