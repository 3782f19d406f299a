"""Progress with rate and time left: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

PLAIN_INTERVAL_S = 10.0
"""Seconds between two plain lines."""


class Progress:
    """Says nothing; the base of those that do, and the default of the Python functions."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """A stage of `total` units of work begins."""

    def advance(self, n: int, best: float | None = None, *, known: bool = False) -> None:
        """`n` more units are done; `best` is the best taskness so far.

        Units that were `known` before this sitting say nothing about its rate.
        """

    def finish(self) -> None:
        """The stage is over."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.finish()


class PlainProgress(Progress):
    """One line now and then on standard error, for logs and pipes."""

    def start(self, stage: str, total: int, unit: str) -> None:
        self._stage, self._total, self._unit = stage, total, unit
        self._done, self._known, self._best = 0, 0, None
        self._since = self._last = time.monotonic()

    def advance(self, n: int, best: float | None = None, *, known: bool = False) -> None:
        self._done += n
        self._best = best if best is not None else self._best
        now = time.monotonic()
        if known:
            self._known, self._since = self._done, now
        if now - self._last >= PLAIN_INTERVAL_S or self._done == self._total:
            self._last = now
            self._say(now)

    def _say(self, now: float) -> None:
        rate = (self._done - self._known) / max(now - self._since, 1e-9)
        left = (self._total - self._done) / max(rate, 1e-9)
        best = "" if self._best is None else f", best {self._best:.3f}"
        pace = f", {rate_text(rate)}, {left:.0f} s left" if rate else ""  # nothing was timed yet
        print(
            f"{self._stage}: {self._done}/{self._total} {self._unit}{best}{pace}",
            file=sys.stderr,
            flush=True,
        )

    _best: float | None = None


class BarProgress(Progress):
    """A bar on the terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        columns: list[ProgressColumn] = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TextColumn("{task.fields[best]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        ]
        self._bar = RichProgress(*columns, console=Console(stderr=True), speed_estimate_period=60)
        self._task: Any = None
        self._best = ""

    def start(self, stage: str, total: int, unit: str) -> None:
        self._bar.start()
        self._best = ""
        self._task = self._bar.add_task(stage, total=total, unit=unit, best="", rate="")

    def advance(self, n: int, best: float | None = None, *, known: bool = False) -> None:
        if best is not None:
            self._best = f"best {best:.3f}"
        if known:
            done = self._bar.tasks[self._task].completed + n
            self._bar.reset(self._task, completed=done, best=self._best)
            return
        speed = self._bar.tasks[self._task].speed
        rate = "" if speed is None else rate_text(speed)
        self._bar.update(self._task, advance=n, best=self._best, rate=rate)

    def finish(self) -> None:
        self._bar.stop()
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None


def rate_text(rate: float) -> str:
    """Units per second; of slow work, per minute."""
    return f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"


def reading(progress: Progress) -> Callable[[int, int], None]:
    """A callback (images done, images in all) that shows the decoding of images."""
    seen = 0

    def tell(done: int, total: int) -> None:
        nonlocal seen
        if not seen:
            progress.start("images", total, "read")
        # The first call comes after a first batch, whose time nobody has taken.
        progress.advance(done - seen, known=not seen)
        seen = done
        if done == total:
            progress.finish()

    return tell


def progress_for(stream: Any = None) -> Progress:
    """A bar if `stream` (standard error) is a terminal, plain lines if not."""
    stream = sys.stderr if stream is None else stream
    return BarProgress() if stream.isatty() else PlainProgress()
