"""What does a search cost, in time and memory, as the image set grows?"""

import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from taskdisc.config import ImagesSettings, SearchSettings, Settings, settings_from
from taskdisc.discovery.run import check_run, find, load_selected
from taskdisc.errors import RunFailedError
from taskdisc.journal import MemoryJournal
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.study import Answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ScaleSettings(Settings):
    """The sizes of the image set, and the search on each."""

    images: ImagesSettings = ImagesSettings()
    n_images: tuple[Annotated[int, Field(ge=10)], ...] = Field((50, 500), min_length=1)
    # Settings of the searches; the images are the study's.
    search: SearchSettings = settings_from(SearchSettings, {"tasks": 16})


def run(settings: ScaleSettings, pool: Pool, progress: Progress) -> Answer:
    """Per size, in a process of its own: set-up, search, tasks put forward, and peak memory.

    Nothing is confirmed: that costs the same for every size above `protocol.most_images`.
    """
    fresh = multiprocessing.get_context("spawn")
    table = []
    progress.start("measure", len(settings.n_images), "sizes")
    for n_images in settings.n_images:
        with ProcessPoolExecutor(1, mp_context=fresh) as process:
            try:
                table.append(process.submit(_measured, settings, n_images).result())
            except BrokenProcessPool as error:
                raise RunFailedError(
                    f"the search on {n_images} images died, most likely for lack of memory; leave "
                    "the size out of `n_images`, or lower `search.closed_form.rank`."
                ) from error
        progress.advance(1)
    progress.finish()
    return Answer(table, _reading(table), {"scale": _draw(table)})


def _measured(settings: ScaleSettings, n_images: int) -> dict[str, Any]:
    """One row of the table. Seconds are of the clock, `cpu` ones of all this process's threads."""
    drawn = settings.images.model_copy(
        update={"n_images": n_images, "n_classes": None, "per_class": None, "class_a": None}
    )
    images = load_selected(drawn, Progress())
    pool = Pool(1, "cpu")
    space = check_run(images, settings.search, pool)
    import torch  # noqa: F401  # the interpreter and its libraries are not the search's memory

    before, _ = _resident()
    clocks = [_clocks()]
    form = space.quadratic
    clocks.append(_clocks())
    found = find(space, pool, MemoryJournal(), MemoryJournal(), Progress())
    clocks.append(_clocks())
    (set_up, set_up_cpu), (search, search_cpu) = (
        [round(b - a, 2) for a, b in zip(*pair, strict=True)] for pair in pairwise(clocks)
    )
    _, peak = _resident()
    return {
        "n_images": n_images,
        "form": type(form).__name__,
        "set_up": set_up,
        "set_up_cpu": set_up_cpu,
        "search": search,
        "search_cpu": search_cpu,
        "tasks": len(found.candidates),
        "wanted": settings.search.tasks,
        "best": round(found.trials[found.candidates[0]].taskness, 4),
        "last": round(found.trials[found.candidates[-1]].taskness, 4),
        "before_gb": round(before / 1e9, 3),
        "peak_gb": round(peak / 1e9, 3),
        "stated_gb": round(space.memory / 1e9, 3),
    }


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _resident() -> tuple[int, int]:
    """Bytes of memory that this process holds now, and the most it ever held."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not `ru_maxrss`, which begins with what the parent process held.
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        now, most = (int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        return now, most
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    most *= 1 if sys.platform == "darwin" else 1024
    return most, most


def _reading(table: list[dict[str, Any]]) -> str:
    return " ".join(
        f"{row['n_images']} images: {row['tasks']} of {row['wanted']} tasks in "
        f"{row['set_up'] + row['search']:.2g} s ({row['set_up']:.2g} s to set up), "
        f"{row['peak_gb'] - row['before_gb']:.2g} GB beside {row['before_gb']:.2g} GB of images "
        f"and libraries, where {row['stated_gb']:.2g} GB were stated."
        for row in table
    )


def _draw(table: list[dict[str, Any]]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    sizes = [row["n_images"] for row in table]
    for name, label in (("set_up", "setting up"), ("search", "searching")):
        time_axes.plot(sizes, [max(row[name], 0.01) for row in table], marker="o", label=label)
    time_axes.set_ylabel("time [s]")
    added = [max(row["peak_gb"] - row["before_gb"], 0.001) for row in table]
    memory_axes.plot(sizes, added, marker="o", label="measured")
    stated = [max(row["stated_gb"], 0.001) for row in table]
    memory_axes.plot(sizes, stated, marker="o", linestyle="--", label="stated before")
    memory_axes.set_ylabel("memory beside images and libraries [GB]")
    for axes in (time_axes, memory_axes):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("images")
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left")
    return figure
