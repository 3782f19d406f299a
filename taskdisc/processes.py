"""A process of its own for what is measured, and the memory that a process holds."""

import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Found = TypeVar("Found")


def in_own_process(
    work: Callable[Given, Found], *given: Given.args, **named: Given.kwargs
) -> Found:
    """What a function of a module returns in a fresh process, which holds nothing of this one.

    Not a forked one, of which pages of libraries would count as grown when they are first used.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        return process.submit(work, *given, **named).result()


def resident_bytes() -> tuple[int, int]:
    """Memory of this process: now, and the most so far; outside Linux the most for both.

    Pages of mapped files count as far as they were read, though the system may drop them.
    """
    status = Path("/proc/self/status")
    if status.exists():  # Linux, whose `ru_maxrss` begins with what the parent process held
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        now, most = (int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        return now, most
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    most = peak * (1 if sys.platform == "darwin" else 1024)
    return most, most
