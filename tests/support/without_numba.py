"""Make the import of numba and llvmlite fail, as where they are not installed.

A pytest plugin too: `python -m pytest -p tests.support.without_numba tests/session`.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

COMPILERS = ("numba", "llvmlite")


class _Blocker(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in COMPILERS:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


assert not any(name in sys.modules for name in COMPILERS)
sys.meta_path.insert(0, _Blocker())
