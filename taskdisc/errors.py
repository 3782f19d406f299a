"""What can go wrong in a way that a user can mend: one sentence each, never a traceback."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class TaskdiscError(Exception):
    """Base of every error that commands print as one line; `exit_code` is the process's status."""

    exit_code: ClassVar[int] = 2


class SettingError(TaskdiscError, ValueError):
    """A setting or argument breaks its rule; names setting, rule, value and cure."""


class ImageSetError(TaskdiscError, ValueError):
    """An image set is missing, empty, unreadable or too small for what was asked of it."""


class RunFolderError(TaskdiscError, RuntimeError):
    """A run folder is foreign, torn in the middle, or holds another run."""


class RunFailedError(TaskdiscError, RuntimeError):
    """A run could not go on (full disk, lost worker); what it had computed is kept."""

    exit_code: ClassVar[int] = 1


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """The end of an error sentence about an unknown name: the nearest valid one, or all of them."""
    choices = sorted(choices)
    lowered = {choice.lower(): choice for choice in choices}
    near = get_close_matches(name.lower(), lowered, n=1)
    if near:
        return f"did you mean '{lowered[near[0]]}'?"
    if len(choices) > 12:
        choices = [*choices[:12], "…"]
    return f"choose one of {', '.join(choices)}."
