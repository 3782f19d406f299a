"""How sure a study is: means over repeats and their intervals."""

from collections.abc import Sequence

import numpy as np

SURE = 0.95
"""Of an interval: how often it holds the truth."""


def mean_and_sem(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over the first axis, NaN left out; a single value has no error."""
    n = np.isfinite(values).sum(axis=0)
    total = np.nansum(values, axis=0)
    mean = np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)
    squares = np.nansum((values - mean) ** 2, axis=0)
    sem = np.sqrt(np.divide(squares, n * (n - 1.0), out=np.full(total.shape, np.nan), where=n > 1))
    return mean, sem


def plus_minus(values: Sequence[float] | np.ndarray, digits: int = 3) -> str:
    """`mean ± standard error` of some repeats."""
    mean, sem = mean_and_sem(np.asarray(values, dtype=float))
    return f"{mean:.{digits}f}" + (f" ± {sem:.{digits}f}" if np.isfinite(sem) else "")


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of some repeats, by Student's t: wide where they are few.

    A single repeat leaves everything open.
    """
    from scipy.stats import t

    given = np.asarray(values, dtype=float)
    given = given[np.isfinite(given)]
    if len(given) < 2:
        return -np.inf, np.inf
    half = t.ppf((1 + SURE) / 2, len(given) - 1) * given.std(ddof=1) / len(given) ** 0.5
    return float(given.mean() - half), float(given.mean() + half)


def with_interval(values: Sequence[float] | np.ndarray, digits: int = 3) -> str | None:
    """`+mean (+low to +high)` of some differences, without an interval where one is alone.

    None where none of them is a number.
    """
    given = np.asarray(values, dtype=float)
    mean, (low, high) = float(mean_and_sem(given)[0]), interval(given)
    if not np.isfinite(mean):
        return None
    inside = f" ({low:+.{digits}f} to {high:+.{digits}f})" if np.isfinite(low) else ""
    return f"{mean:+.{digits}f}{inside}"


def finite(value: float | np.ndarray) -> float | None:
    """A number as a table has it: None where it is none."""
    return float(value) if np.isfinite(value) else None


def sign_of(values: Sequence[float] | np.ndarray) -> int:
    """1 or −1 where the interval of a mean lies above or below 0, else 0: it cannot be told."""
    low, high = interval(values)
    return 1 if low > 0 else -1 if high < 0 else 0
