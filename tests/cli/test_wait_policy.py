"""How threads of OpenMP wait, as torch's own library reads it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.command_line import MAIN, WITHOUT_TORCH

TORCH = importlib.util.find_spec("torch")
OPENMP = Path(TORCH.submodule_search_locations[0], "lib", "libgomp.so.1")  # type: ignore[union-attr,index]

LOAD = f"""
def at_loading():
    import ctypes
    ctypes.CDLL({str(OPENMP)!r})
    sys.exit()
"""


@pytest.mark.skipif(not OPENMP.exists(), reason="torch brings another OpenMP here")
@pytest.mark.parametrize(
    ("own", "spins"),
    [
        ({}, "1000"),
        ({"OMP_WAIT_POLICY": "active"}, "30000000000"),
        ({"OMP_WAIT_POLICY": "passive"}, "0"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
    ],
)
def test_threads_spin_shortly_unless_the_user_says_otherwise(
    own: dict[str, str], spins: str, tmp_path: Path
) -> None:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH + LOAD + MAIN, "record", "-o", str(tmp_path / "a")],
        env=inherited | own | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr
