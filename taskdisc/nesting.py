"""Values that name the same part many times: small only until somebody writes them out."""

from collections.abc import Callable, Iterable
from typing import Any

DEEPEST = 100
"""Levels of values within values."""


def check_nested(value: Any, inner: Callable[[Any], Iterable[Any]], most: int) -> None:
    """Refuse a value that counts too many parts where each is counted as often as it is met.

    A text of a few lines can name a list nine times in another, that nine times in a third, and so
    on: a billion entries, if anything visits them all.

    Args:
        value: The value.
        inner: What a value directly holds; nothing for a number or a text.
        most: Parts that it may have.

    Raises:
        ValueError: it has more, holds itself, or is nested deeper than `DEEPEST`.
    """
    counts: dict[int, int] = {}
    open_: list[tuple[Any, list[Any]]] = [(value, list(inner(value)))]
    above = {id(value)}
    totals = [1]
    while open_:
        if len(open_) > DEEPEST:
            raise ValueError(f"it is nested deeper than {DEEPEST} levels")
        of, left = open_[-1]
        if totals[-1] > most:
            raise ValueError(f"its parts, each counted wherever it is named, are above {most:,}")
        if not left:
            open_.pop()
            above.discard(id(of))
            counts[id(of)] = total = totals.pop()
            if totals:
                totals[-1] += total
            continue
        part = left.pop()
        if id(part) in counts:
            totals[-1] += counts[id(part)]
            continue
        parts = list(inner(part))
        if not parts:
            totals[-1] += 1
            continue
        if id(part) in above:
            raise ValueError("it holds itself")
        above.add(id(part))
        open_.append((part, parts))
        totals.append(1)


def entries(value: Any) -> Iterable[Any]:
    """What a plain value directly holds."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list | tuple | set) else ()
