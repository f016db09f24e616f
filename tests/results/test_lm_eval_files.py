"""lm-eval's own files of an evaluation, without lm-eval."""

import json
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.results.comparison import compare
from prunetui.engine.results.export.lm_eval_files import lm_eval_files
from prunetui.engine.results.results import Results

from ..support.results import make_results

RESULTS = make_results()
FILES = dict(lm_eval_files(RESULTS))
DATE = "2026-01-01T10-20-30"


def samples(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in FILES[path].splitlines()]


def test_each_lane_has_a_directory_of_its_own() -> None:
    tasks = ("options", "likelihood", "generation")
    assert [*FILES] == [
        f"{directory}/{name}"
        for directory in ("0-baseline", "1-drop__attn=1", "2-drop__mlp=1")
        for name in [*(f"samples_{t}_{DATE}.jsonl" for t in tasks), f"results_{DATE}.json"]
    ]


def test_scores_are_those_of_the_table() -> None:
    for lane, directory in enumerate(("0-baseline", "1-drop__attn=1", "2-drop__mlp=1")):
        results = json.loads(FILES[f"{directory}/results_{DATE}.json"])
        assert [*results["results"]] == ["choice", "options", "likelihood", "generation"]
        for comparison in compare(RESULTS):
            if comparison.kind == "retrieval":
                continue
            entry = results["results"][comparison.name]
            assert entry["sample_len"] == comparison.items
            for score in comparison.cells[lane].scores:
                key, (name, filter_name) = score.metric.key, score.metric.key.split(",")
                assert entry[key] == score.value
                stderr = entry[f"{name}_stderr,{filter_name}"]
                assert stderr == ("N/A" if score.stderr is None else score.stderr)
        assert results["groups"] == {"choice": results["results"]["choice"]}
        assert results["group_subtasks"] == {"choice": ["options"]}
        assert results["n-samples"]["options"] == {"original": 16, "effective": 6}
        assert results["n-shot"]["options"] == 2
        assert results["higher_is_better"]["likelihood"] == {"perplexity": False}
        assert results["configs"]["options"] == RESULTS.header.tasks[0].config
        assert results["config"]["model_args"]["recipe"] == RESULTS.header.lanes[lane].recipe
        assert results["config"]["limit"] == 6
        assert results["date"] == 1767262830.0
        assert results["lm_eval_version"] == "0.4.13"


def test_samples_have_requests_responses_and_hashes() -> None:
    for lane, directory in enumerate(("0-baseline", "1-drop__attn=1", "2-drop__mlp=1")):
        joined = ""
        read = samples(f"{directory}/samples_options_{DATE}.jsonl")
        for sample, item in zip(read, RESULTS.items["options"], strict=True):
            answer = item.answers[lane]
            assert (sample["doc_id"], sample["doc"]) == (item.index, item.doc)
            assert sample["target"] == str(item.gold_option)
            assert [*sample["arguments"]] == [f"gen_args_{n}" for n in range(4)]
            for n, option in enumerate(item.options):
                arguments = {"arg_0": item.contexts[0], "arg_1": option.continuation}
                assert sample["arguments"][f"gen_args_{n}"] == arguments
                response = [str(answer.logprobs[n]), str(answer.greedy[n])]
                assert sample["resps"][n] == [response]
                assert sample["filtered_resps"][n] == response
            assert (sample["filter"], sample["metrics"]) == ("none", ["acc", "acc_norm"])
            assert sample["acc"] == answer.scores["acc,none"]
            assert sample["doc_hash"] == item.hash
            assert sample["prompt_hash"] == sha256(item.contexts[0].encode()).hexdigest()
            assert sample["target_hash"] == sha256(sample["target"].encode()).hexdigest()
            joined += sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"]
        results = json.loads(FILES[f"{directory}/results_{DATE}.json"])
        assert results["task_hashes"]["options"] == sha256(joined.encode()).hexdigest()


def test_a_generation_has_its_settings_and_what_each_filter_takes() -> None:
    read = samples(f"1-drop__attn=1/samples_generation_{DATE}.jsonl")
    for sample, item in zip(read, RESULTS.items["generation"], strict=True):
        answer = item.answers[1]
        settings = {"until": item.until, "max_gen_toks": 32}
        assert sample["arguments"] == {"gen_args_0": {"arg_0": item.contexts[0], "arg_1": settings}}
        assert sample["resps"] == [[answer.text]]
        assert sample["filtered_resps"] == [answer.filtered["strict-match"]]
        assert sample["filter"] == "strict-match"
        assert sample["exact_match"] == answer.scores["exact_match,strict-match"]


def test_names_are_made_fit_for_a_file_system() -> None:
    header = RESULTS.header
    names = ["../../../etc/x", "a\x1b[31m:b/..", "Ünï" * 200]
    lanes = [
        msgspec.structs.replace(lane, name=name)
        for lane, name in zip(header.lanes, names, strict=True)
    ]
    tasks = [
        msgspec.structs.replace(task, name=name, config={})
        for task, name in zip(header.tasks, ["a/../b", "a:..:b", ".", "r"], strict=True)
    ]
    hostile = msgspec.structs.replace(header, lanes=lanes, tasks=tasks, created="../../now")
    paths = [path for path, _ in lm_eval_files(Results(hostile))]
    assert len({*paths}) == len(paths) == 12
    for path in paths:
        directory, name = path.split("/")
        assert len(directory) < 120
        assert len(name) < 250
        assert path.isascii()
        assert not path.startswith(".")


def test_an_evaluation_of_retrieval_alone_has_no_such_files() -> None:
    with pytest.raises(UserError, match="of its own tasks, and this evaluation has none"):
        dict(lm_eval_files(make_results(kinds=["retrieval"])))
