"""Plain JSON data of what lm-eval and its tasks hand out."""

import functools
import hashlib
import inspect
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from lm_eval.utils import handle_non_serializable, hash_string


def plain(value: Any) -> Any:
    """A value of JSON: numbers of numpy as Python's, null for what is not finite, pairs as lists.

    Functions become their source, and other objects text without addresses.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(each) for each in value), key=str)
    if isinstance(value, functools.partial):
        return plain([value.func, value.args, value.keywords])
    if callable(value):
        try:
            return inspect.getsource(value)
        except (TypeError, OSError):
            return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    if hasattr(value, "__dict__"):
        return plain(vars(value))
    return str(value)


def digest(*values: Any) -> str:
    """SHA-256 of plain data."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def document_hash(document: Any) -> str:
    """lm-eval's `doc_hash`."""
    return hash_string(
        json.dumps(document, indent=2, default=handle_non_serializable, ensure_ascii=False)
    )
