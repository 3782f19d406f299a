"""What a reader may do with a file that somebody else made: answer, or refuse it in one sentence.

It may neither take long, nor much memory, nor raise anything else, nor run what the file holds.
"""

import os
import resource
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from taskdisc.errors import TaskdiscError

EXAMPLES = int(os.environ.get("TASKDISC_FUZZ", "0"))
"""Examples for each reader, as `make fuzz` asks for them; 0 for the few of the normal tests."""

SECONDS = 20.0
"""Seconds of work that one file may cost: all here are small."""

PATIENCE = 600.0
"""Seconds that it may take on a busy machine; only what waits for something takes them."""

MEMORY = 2**30
"""Bytes that reading a small file may take beyond what the process has."""

LONGEST = 900
"""Characters of a sentence."""

TRIED: Counter[str] = Counter()
"""Broken files that were read, by what came of them, in this process."""

REFUSED = "refused"
"""Stands for the answer of a reader that refuses a file."""


class _Slow(BaseException):
    """Not an Exception: no reader may take it for damage of the file."""


@contextmanager
def bounded(memory: int = MEMORY) -> Iterator[None]:
    """Within it, a call that takes longer ends, and memory beyond the bound is not to be had."""

    def ring(number: int, frame: Any) -> None:
        raise _Slow

    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = {number: signal.signal(number, ring) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def outcome(read: Callable[[], Any], canary: Path) -> Any:
    """What reading gave, or `REFUSED`; fails the test for anything that a reader must not do."""
    wrong = ""  # told below: pytest cannot show where a signal met the code of a library
    found = None
    try:
        with bounded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as a user has it, to whom they are no errors
            found = read()
    except TaskdiscError as error:
        _check_sentence(error)
        found = REFUSED
    except _Slow:
        wrong = f"it takes more than {SECONDS:g} s"
    except MemoryError as error:
        wrong = f"it takes more than {MEMORY:,} bytes: {error!r}"
    if wrong:
        pytest.fail(wrong)
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
