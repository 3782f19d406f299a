"""Schedules by name."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from taskdisc.errors import SettingError, did_you_mean
from taskdisc.mtl.schedules.row import Row
from taskdisc.mtl.schedules.table import SCHEDULES
from taskdisc.mtl.settings import PerTask, check_settings, values_of

if TYPE_CHECKING:
    from taskdisc.mtl.schedules.base import Schedule


def _ones(n_tasks: int) -> float:
    return 1.0


FACTS = {
    "head_depths": PerTask(_ones, low=0.0, total=True),
    "n_labelled": PerTask(_ones, low=0.0, total=True),
}
"""What is told about the tasks, by argument; None stands for the same of each."""


def make_schedule(
    name: str,
    n_tasks: int,
    seed: int = 0,
    *,
    main: int | None = None,
    head_depths: Sequence[float] | None = None,
    n_labelled: Sequence[float] | None = None,
    **settings: Any,
) -> "Schedule":
    """The schedule of that name.

    Args:
        name: A key of `SCHEDULES`.
        n_tasks: Number of tasks, at least 1.
        seed: From which all draws follow, at least 0.
        main: Which task is the main one, from 0, where there is one.
        head_depths: Layers of each task's head, for schedules that ask for it; the same of each
            by default.
        n_labelled: Training images with a label, of each task, likewise.
        settings: Its settings; the others have their defaults.

    Raises:
        SettingError: an unknown name or setting, or a value that breaks its rule.
    """
    row = checked(name, n_tasks, settings)
    if seed < 0:
        raise SettingError(f"`seed` must be at least 0, got {seed}.")
    if main is not None and not 0 <= main < n_tasks:
        raise SettingError(f"`main` must be the number of a task, 0 to {n_tasks - 1}, got {main}.")
    facts = {"head_depths": head_depths, "n_labelled": n_labelled}
    check_settings("schedule", name, FACTS, facts, n_tasks)
    from taskdisc.mtl.schedules.base import Setup

    setup = Setup(n_tasks, main=main, seed=seed, **values_of(FACTS, facts, n_tasks))
    return row.make(setup, **values_of(row.settings, settings, n_tasks))


def checked(name: str, n_tasks: int, settings: Mapping[str, Any]) -> Row:
    """The row of a schedule that could be made so; imports nothing heavy.

    Raises:
        SettingError: as `make_schedule`, but for what it says of the tasks.
    """
    if name not in SCHEDULES:
        raise SettingError(
            f"the schedule must be a known one, got {name!r}; {did_you_mean(name, SCHEDULES)}"
        )
    row = SCHEDULES[name]
    if n_tasks < 1:
        raise SettingError(f"`n_tasks` must be at least 1, got {n_tasks}.")
    check_settings("schedule", name, row.settings, settings, n_tasks)
    _check_shares(name, row, settings)
    return row


def _check_shares(name: str, row: Row, settings: Mapping[str, Any]) -> None:
    values = values_of(row.settings, settings, 1)
    shares = [values[key] for key in row.shares]
    # As far as ten digits, so that thirds and tenths may be written down.
    if shares and abs(sum(shares) - 1) > 1e-9:
        named = ", ".join(f"`{key}` {values[key]:g}" for key in row.shares)
        raise SettingError(
            f"the shares of schedule '{name}' must add up to 1, got {named}: {sum(shares):g}; "
            "give all of them."
        )
