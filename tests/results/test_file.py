from pathlib import Path

from prunetui.engine.results.file import read_results

from ..support.results import make_results, write_results


def test_what_is_written_is_read(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path))
    assert results == make_results()
    assert results.complete
