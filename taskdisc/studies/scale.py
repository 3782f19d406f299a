"""What does a search cost with more images? Time and memory of searching, without confirmation."""

import time
from typing import Annotated, Any

from pydantic import Field

from taskdisc.config import ImagesSettings, SearchSettings, Settings
from taskdisc.discovery.run import check_run, find, load_selected
from taskdisc.pool import Pool
from taskdisc.processes import in_own_process, resident_bytes
from taskdisc.progress import Progress
from taskdisc.studies.drawing import figure_of
from taskdisc.studies.study import Answer, Cell, Plot, Record, Study


class ScaleSettings(Settings):
    """The sizes, and the search that is run on each."""

    images: ImagesSettings = ImagesSettings()
    n_images: tuple[Annotated[int, Field(ge=10)], ...] = Field((50, 500), min_length=1)
    search: SearchSettings = SearchSettings(tasks=8)  # images are the study's


def cells(settings: ScaleSettings) -> list[Cell]:
    """One per size."""
    return [{"n_images": n_images} for n_images in settings.n_images]


def measure(settings: ScaleSettings, cell: Cell, pool: Pool, progress: Progress) -> dict[str, Any]:
    """Seconds and gigabytes of a search, in a process of its own.

    `set_up_s` is for the closed form, `search_s` for all the rest; `cpu_s` is processor time of
    both. `memory_gb` is by how much the process has grown at its peak since the images were
    loaded, `stated_gb` what the run says beforehand that its closed form needs.
    """
    return in_own_process(_measured, settings, cell["n_images"])


def answer(settings: ScaleSettings, records: list[Record]) -> Answer:
    """Time and memory by number of images."""
    return Answer(records, _reading(records), {"scale": _draw(records)})


def _measured(settings: ScaleSettings, n_images: int) -> dict[str, Any]:
    drawn = {"n_images": n_images, "n_classes": None, "per_class": None}
    images = load_selected(settings.images.model_copy(update=drawn), Progress())
    pool = Pool(1, "cpu")
    space = check_run(images, settings.search, pool)  # refuses what would not fit
    before, _ = resident_bytes()
    clock, cpu = time.perf_counter(), time.process_time()
    _ = space.quadratic
    set_up = time.perf_counter() - clock
    found = find(space, pool, Progress())
    return {
        "set_up_s": round(set_up, 2),
        "search_s": round(time.perf_counter() - clock - set_up, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "put_forward": len(found.candidates),
        "memory_gb": round((resident_bytes()[1] - before) / 1e9, 3),
        "stated_gb": round(space.memory / 1e9, 3),
    }


def _reading(table: list[dict[str, Any]]) -> str:
    sentences = [
        f"{row['n_images']} images: {row['put_forward']} labelings in "
        f"{row['set_up_s'] + row['search_s']:.3g} s, {row['memory_gb']:.2g} GB"
        for row in table
    ]
    return f"{'; '.join(sentences)}."


def _draw(table: list[dict[str, Any]]) -> Plot:
    figure, (left, right) = figure_of(2, width=4)
    sizes = [row["n_images"] for row in table]
    left.plot(sizes, [row["set_up_s"] + row["search_s"] for row in table], label="measured")
    left.set_ylabel("set-up and search [s]")
    right.plot(sizes, [max(row["memory_gb"], 1e-3) for row in table], label="measured")
    right.plot(sizes, [row["stated_gb"] for row in table], label="stated beforehand")
    right.set_ylabel("memory [GB]")
    right.legend()
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="images")
    return Plot(figure, "Time (left) and memory (right) of one search at each size, measured once.")


STUDY = Study(
    "what does a search cost with more images?",
    ScaleSettings,
    cells,
    measure,
    answer,
    alone=True,
)
