"""Weightings by name."""

import re
from typing import TYPE_CHECKING, Any

from taskdisc.errors import SettingError, did_you_mean
from taskdisc.mtl.settings import check_settings, values_of
from taskdisc.mtl.weightings.row import Row
from taskdisc.mtl.weightings.table import WEIGHTINGS

if TYPE_CHECKING:
    from taskdisc.mtl.weightings.base import Weighting


def make_weighting(
    name: str, n_tasks: int, main: int | None = None, seed: int = 0, **settings: Any
) -> "Weighting":
    """The weighting of that name.

    Args:
        name: A key of `WEIGHTINGS`.
        n_tasks: Number of tasks, at least 1.
        main: Which of them is the main one, from 0, for weightings that treat one as such.
        seed: From which all that it draws follows, at least 0.
        settings: Its settings; the others have their defaults.

    Raises:
        SettingError: an unknown name or setting, a value that breaks its rule, no main task or too
            few tasks for this weighting, or a solver that is not installed.
    """
    row = checked(name, n_tasks, main, settings)
    if seed < 0:
        raise SettingError(f"`seed` must be at least 0, got {seed}.")
    from taskdisc.mtl.weightings.base import Setup

    values = values_of(row.settings, settings, n_tasks)
    if row.torchjd:
        values["torchjd"] = row.torchjd
    try:
        return row.make(Setup(n_tasks, main, seed), **values)
    except ImportError as error:
        raise SettingError(
            f"weighting '{name}' must have its solver installed: {_install_line(error, row)}"
        ) from error


def checked(name: str, n_tasks: int, main: int | None, settings: dict[str, Any]) -> Row:
    """The row of a weighting that could be made so; imports nothing heavy.

    Raises:
        SettingError: as `make_weighting`, but for solvers.
    """
    if name not in WEIGHTINGS:
        raise SettingError(
            f"the weighting must be a known one, got {name!r}; {did_you_mean(name, WEIGHTINGS)}"
        )
    row = WEIGHTINGS[name]
    if n_tasks < 1:
        raise SettingError(f"`n_tasks` must be at least 1, got {n_tasks}.")
    if main is not None and not 0 <= main < n_tasks:
        raise SettingError(f"`main` must be the number of a task, 0 to {n_tasks - 1}, got {main}.")
    if main is None and row.requires_main:
        raise SettingError(f"`main` must name the main task for weighting '{name}', got none.")
    check_settings("weighting", name, row.settings, settings, n_tasks)
    least = row.least_tasks({**row.defaults, **settings})
    if n_tasks < least:
        raise SettingError(
            f"`n_tasks` must be at least {least} for weighting '{name}' with these settings, "
            f"got {n_tasks}."
        )
    return row


def _install_line(error: ImportError, row: Row) -> str:
    """The command in torchjd's message, or else of the extra that the row names."""
    found = re.search(r"pip install \S+", str(error))
    default = f'pip install "torchjd[{row.extra or "full"}]"'
    return f"{found.group() if found else default}."
