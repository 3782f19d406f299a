"""What a reader may do with a file that somebody else made: answer, or refuse it in one sentence.

It may neither take long, nor much memory, nor raise anything else, nor run what the file holds.
"""

import os
import resource
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from taskdisc.errors import TaskdiscError

EXAMPLES = int(os.environ.get("TASKDISC_FUZZ", "0"))
"""Examples for each reader, as `make fuzz` asks for them; 0 for the few of the normal tests."""

SECONDS = 30.0
"""Patience with one file: all here are small, and machines busy."""

MEMORY = 2**30
"""Bytes that reading a small file may take beyond what the process has."""

LONGEST = 900
"""Characters of a sentence."""

REFUSED = "refused"
"""Stands for the answer of a reader that refuses a file."""


class _Slow(BaseException):
    """Not an Exception: no reader may take it for damage of the file."""


@contextmanager
def bounded(seconds: float = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Within it, a call that takes longer ends, and memory beyond the bound is not to be had."""

    def ring(number: int, frame: Any) -> None:
        raise _Slow

    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(read: Callable[[], Any], canary: Path) -> Any:
    """What reading gave, or `REFUSED`; fails the test for anything that a reader must not do."""
    try:
        with bounded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as a user has it, to whom they are no errors
            found = read()
    except TaskdiscError as error:
        _check_sentence(error)
        found = REFUSED
    except _Slow:
        pytest.fail(f"it takes more than {SECONDS:g} s")
    except MemoryError as error:
        pytest.fail(f"it takes more than {MEMORY:,} bytes: {error!r}")
    # Both have to be met: the payload raises SystemExit, which only a broad `except` would hide.
    assert not canary.exists(), "the code in the file was executed"
    return found


def _check_sentence(error: TaskdiscError) -> None:
    text = str(error)
    assert text and "\n" not in text and len(text) <= LONGEST, f"no sentence: {text[:2000]!r}"
    cause: BaseException | None = error
    while cause is not None:
        # Whoever turns a lack of memory into a sentence has asked for it first.
        lacking = isinstance(cause, MemoryError) or "allocate memory" in str(cause)
        assert not lacking, f"it takes more than {MEMORY:,} bytes: {cause!r}"
        cause = cause.__cause__ or cause.__context__
