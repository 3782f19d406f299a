"""JSON that somebody else may have written: plain, finite, unambiguous values, or a ValueError."""

import json
import math
from pathlib import Path
from typing import Any


def parse_json(content: bytes | str, any_text: bool = False) -> Any:
    """The value of a JSON text, stricter than `json.loads`.

    Args:
        content: The text.
        any_text: Whether half a pair of surrogates is let in, for the caller to refuse.

    Raises:
        ValueError: no UTF-8, no JSON, nested too deeply, an object that has a key twice, a number
            that is none or is infinite, or half a pair of surrogates, which no file can hold.
    """
    text = content.decode() if isinstance(content, bytes) else content
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    # Only an escape can make half a pair; looking for it costs less than looking at every text.
    if not any_text and ("\\ud" in text or "\\uD" in text):
        json.dumps(value, ensure_ascii=False).encode()
    return value


def read_json(path: Path, any_text: bool = False) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: as `parse_json`, or it is no plain file: to open a pipe would be to wait for it.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no plain file")
    return parse_json(path.read_bytes(), any_text)


MOST = 1e100
"""Beyond all that is measured; sums and squares of smaller numbers are finite."""


def finite(value: Any) -> float:
    """A number of JSON as a float.

    Raises:
        TypeError: it is something else; `float` would take a text, also of a number beyond all.
        ValueError: it is beyond `MOST`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{type(value).__name__} is no number")
    if abs(value) > MOST:
        raise ValueError(f"{value:.2g} is beyond all measurements")
    return float(value)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:20]} is beyond all numbers")
    return value


def _int(text: str) -> int:
    # Beyond it lie errors of floats and of arrays, and numbers that Python does not write out.
    if len(text) > 19 and not -(2**63) <= int(text) < 2**63:
        raise ValueError("a whole number is beyond 64 bits")
    return int(text)


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_float=_float, parse_int=_int, parse_constant=_constant
)
