"""Kinds of settings of a method, as data: a default and a rule that values must keep."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from taskdisc.errors import SettingError, did_you_mean


class Setting(Protocol):
    """One setting; `None` is a value of those whose default it is."""

    @property
    def default(self) -> Any:
        """The value when none is given."""

    def rule(self, n_tasks: int) -> str:
        """What a value must be, the end of a sentence."""

    def keeps(self, value: Any, n_tasks: int) -> bool:
        """Whether a value keeps the rule."""

    def value(self, value: Any, n_tasks: int) -> Any:
        """A value that keeps the rule, as a weighting takes it."""


@dataclass(frozen=True)
class Number:
    """A finite number between two bounds, which belong to the range unless it is open there."""

    default: float
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def rule(self, n_tasks: int) -> str:
        left = "(" if self.open_low or math.isinf(self.low) else "["
        right = ")" if self.open_high or math.isinf(self.high) else "]"
        return f"a number in {left}{self.low:g}, {self.high:g}{right}"

    def keeps(self, value: Any, n_tasks: int) -> bool:
        return (
            _is_number(value)
            and self.low <= value <= self.high
            and not (self.open_low and value == self.low)
            and not (self.open_high and value == self.high)
        )

    def value(self, value: Any, n_tasks: int) -> float:
        return float(value)


@dataclass(frozen=True)
class Whole:
    """A whole number, at least `low`; with `within_tasks`, at most the number of tasks."""

    default: int
    low: int = 0
    within_tasks: bool = False

    def rule(self, n_tasks: int) -> str:
        most = f" and at most the {n_tasks} tasks" if self.within_tasks else ""
        return f"a whole number of at least {self.low}{most}"

    def keeps(self, value: Any, n_tasks: int) -> bool:
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and value >= self.low
            and not (self.within_tasks and value > n_tasks)
        )

    def value(self, value: Any, n_tasks: int) -> int:
        return int(value)


@dataclass(frozen=True)
class OneTask:
    """The number of a task, from 0."""

    default: int = 0

    def rule(self, n_tasks: int) -> str:
        return f"the number of a task, from 0 to {n_tasks - 1}"

    def keeps(self, value: Any, n_tasks: int) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < n_tasks

    def value(self, value: Any, n_tasks: int) -> int:
        return int(value)


@dataclass(frozen=True)
class Flag:
    """True or false."""

    default: bool

    def rule(self, n_tasks: int) -> str:
        return "true or false"

    def keeps(self, value: Any, n_tasks: int) -> bool:
        return isinstance(value, bool)

    def value(self, value: Any, n_tasks: int) -> bool:
        return bool(value)


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    default: str
    choices: tuple[str, ...]

    def rule(self, n_tasks: int) -> str:
        return f"one of {', '.join(self.choices)}"

    def keeps(self, value: Any, n_tasks: int) -> bool:
        return value in self.choices

    def value(self, value: Any, n_tasks: int) -> str:
        return str(value)


@dataclass(frozen=True)
class PerTask:
    """One number for each task, from `low` to `high`; with `total`, not all of them 0.

    None stands for `fill(n_tasks)` for each task, or is passed on where there is no `fill`.
    """

    fill: Callable[[int], float] | None = None
    low: float = -math.inf
    high: float = math.inf
    total: bool = False
    default: None = None

    def rule(self, n_tasks: int) -> str:
        least = "" if math.isinf(self.low) else f" of at least {self.low:g}"
        most = "" if math.isinf(self.high) else f" and at most {self.high:g}"
        some = ", not all of them 0" if self.total else ""
        return f"a list of {n_tasks} numbers{least}{most}, one for each task{some}"

    def keeps(self, value: Any, n_tasks: int) -> bool:
        return value is None or (
            isinstance(value, list | tuple)
            and len(value) == n_tasks
            and all(_is_number(number) and self.low <= number <= self.high for number in value)
            and (any(value) or not self.total)
        )

    def value(self, value: Any, n_tasks: int) -> tuple[float, ...] | None:
        if value is not None:
            return tuple(float(number) for number in value)
        return None if self.fill is None else (self.fill(n_tasks),) * n_tasks


@dataclass(frozen=True)
class WordPerTask:
    """One of some words for each task; None stands for the first of them for each."""

    choices: tuple[str, ...]
    default: None = None

    def rule(self, n_tasks: int) -> str:
        return f"a list of {n_tasks} words among {', '.join(self.choices)}, one for each task"

    def keeps(self, value: Any, n_tasks: int) -> bool:
        return value is None or (
            isinstance(value, list | tuple)
            and len(value) == n_tasks
            and all(word in self.choices for word in value)
        )

    def value(self, value: Any, n_tasks: int) -> tuple[str, ...]:
        return (self.choices[0],) * n_tasks if value is None else tuple(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_settings(
    what: str, name: str, settings: Mapping[str, Setting], given: Mapping[str, Any], n_tasks: int
) -> None:
    """Refuse values that a method does not take.

    Args:
        what: The kind of method, for error sentences: `weighting`, `architecture`, …
        name: The method.
        settings: Its settings by name.
        given: Values for some of them.
        n_tasks: For how many tasks.

    Raises:
        SettingError: an unknown setting, or a value that breaks its rule.
    """
    for key, value in given.items():
        if key not in settings:
            cure = did_you_mean(key, settings) if settings else "it has no settings."
            raise SettingError(f"`{key}` is not a setting of {what} '{name}'; {cure}")
        if not settings[key].keeps(value, n_tasks):
            raise SettingError(
                f"`{key}` of {what} '{name}' must be {settings[key].rule(n_tasks)}, got {value!r}."
            )


def values_of(
    settings: Mapping[str, Setting], given: Mapping[str, Any], n_tasks: int
) -> dict[str, Any]:
    """All settings of a method, those that are not given at their defaults, as it takes them."""
    return {
        key: setting.value(given.get(key, setting.default), n_tasks)
        for key, setting in settings.items()
    }
