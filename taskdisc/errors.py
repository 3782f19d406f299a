"""What can go wrong in a way that a user can mend: one sentence each, never a traceback."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from reprlib import Repr
from typing import ClassVar

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LONG_WORD = re.compile(r"[^\s/]{300,}")  # a part of a path has at most 255
_LONGEST = 2000


class TaskdiscError(Exception):
    """Base of every error that commands print as one line; `exit_code` is the process's status."""

    exit_code: ClassVar[int] = 2

    def __str__(self) -> str:
        # What a file says of itself stands within; it must stay one line of a readable length, and
        # not move the cursor of a terminal.
        text = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", super().__str__())
        text = _LONG_WORD.sub(lambda word: f"{word[0][:100]}…{word[0][-20:]}", text)
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[-200:]}"


class SettingError(TaskdiscError, ValueError):
    """A setting or argument breaks its rule; names setting, rule, value and cure."""


class ImageSetError(TaskdiscError, ValueError):
    """An image set is missing, empty, unreadable or too small for what was asked of it."""


class RunFolderError(TaskdiscError, RuntimeError):
    """A run folder is foreign, torn in the middle, or holds another run."""


class RunFailedError(TaskdiscError, RuntimeError):
    """A run could not go on (full disk, lost worker); what it had computed is kept."""

    exit_code: ClassVar[int] = 1


_REPR = Repr()
_REPR.maxstring = _REPR.maxother = 100
_REPR.maxlevel, _REPR.maxlist, _REPR.maxdict = 3, 8, 8


def shown(value: object) -> str:
    """A value within a sentence: its `repr`, shortened where it is long or deep."""
    return " ".join(_REPR.repr(value).split())


def did_you_mean(name: str, choices: Iterable[str], within: str = "") -> str:
    """The end of an error sentence about an unknown name: the nearest valid one, or all of them.

    `within` stands before the nearest one, such as `images.` before one of its settings.
    """
    choices = sorted(choices)
    lowered = {choice.lower(): choice for choice in choices}
    near = get_close_matches(name.lower(), lowered, n=1)
    if near:
        return f"did you mean '{within}{lowered[near[0]]}'?"
    if len(choices) > 12:
        choices = [*choices[:12], "…"]
    return f"choose one of {', '.join(choices)}."
