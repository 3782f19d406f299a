"""How many classes does a search find again, without ever seeing one?"""

import time
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from taskdisc.config import ImagesSettings, SearchSettings, Settings, settings_from
from taskdisc.discovery.classes import RECOVERED, best_class
from taskdisc.discovery.run import find
from taskdisc.discovery.space import Space
from taskdisc.errors import SettingError
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.drawing import plot
from taskdisc.studies.images import drawn
from taskdisc.studies.study import Answer, Cell, Plot, Record, Study


class RecoverySettings(Settings):
    """The image sets, and the searches that look for their classes."""

    images: ImagesSettings = ImagesSettings()
    n_classes: int = Field(10, ge=2)
    image_seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1), min_length=1)
    n_images: tuple[Annotated[int, Field(ge=20)], ...] = Field((100,), min_length=1)
    by_class: bool = True  # as many of each class; else drawn from all images
    # Settings of each search by its name; images, ratio and seed are the study's.
    searches: dict[str, dict[str, Any]] = Field(
        {"pixels": {}, "random features": {"closed_form": {"features": "random"}}}, min_length=1
    )
    tasks: int = Field(20, ge=1)  # labelings that a search may put forward
    min_ablation: float = Field(0.8, ge=0, le=1)  # between them
    seed: int = Field(0, ge=0)


def cells(settings: RecoverySettings) -> list[Cell]:
    """One per size, image set and search.

    Raises:
        SettingError: a size that cannot be divided evenly among the classes.
    """
    for n_images in settings.n_images:
        if n_images % settings.n_classes:
            raise SettingError(
                f"`n_images` must be multiples of `n_classes` = {settings.n_classes}, for the "
                f"positives to be as many as a class has images, got {n_images}."
            )
    return [
        {"n_images": n_images, "images_seed": image_seed, "search": name}
        for n_images in settings.n_images
        for image_seed in settings.image_seeds
        for name in settings.searches
    ]


def measure(
    settings: RecoverySettings, cell: Cell, pool: Pool, progress: Progress
) -> dict[str, Any]:
    """Classes recovered (80 % of a labeling's positives, and half of them) by one search.

    The ratio is 1:(n_classes − 1), so that a labeling has as many positives as a class has images
    on average. Labelings are put forward by what the search saw, unconfirmed.
    """
    draw: dict[str, Any] = {"seed": cell["images_seed"], "n_images": cell["n_images"]}
    if settings.by_class:
        per_class = cell["n_images"] // settings.n_classes
        draw |= {"n_images": None, "per_class": per_class, "n_classes": settings.n_classes}
    images = drawn(settings.images, **draw)
    target = images.target(settings.images.target)
    numbers, names = images.targets[target], images.classes[target]
    common = {
        "ratio": settings.n_classes - 1,
        "tasks": settings.tasks,
        "min_ablation": settings.min_ablation,
        "seed": settings.seed,
    }
    search = settings_from(SearchSettings, {**common, **settings.searches[cell["search"]]})
    start = time.perf_counter()
    found = find(Space(images, search), pool, progress)
    seconds = time.perf_counter() - start
    matches = [best_class(found.trials[i].labeling, numbers, names) for i in found.candidates]
    return {
        "n_classes": settings.n_classes,
        "recovered": len({m["class"] for m in matches if m["share"] >= RECOVERED}),
        "half": len({m["class"] for m in matches if m["share"] >= 0.5}),
        "put_forward": len(matches),
        "labelings": len(found.trials),
        "seconds": round(seconds, 2),
    }


def answer(settings: RecoverySettings, records: list[Record]) -> Answer:
    """Classes recovered, by search and size."""
    return Answer(records, _reading(records), {"recovered": _draw(records)})


def _by_search(table: list[dict[str, Any]]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    rows: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in table:
        rows.setdefault((row["search"], row["n_images"]), []).append(row)
    return rows


def _reading(table: list[dict[str, Any]]) -> str:
    sentences = [
        f"'{name}' recovers {np.mean([row['recovered'] for row in rows]):.1f} of "
        f"{rows[0]['n_classes']} classes on {n_images} images "
        f"({', '.join(str(row['recovered']) for row in rows)}) in "
        f"{np.median([row['seconds'] for row in rows]):.2g} s"
        for (name, n_images), rows in _by_search(table).items()
    ]
    return f"Mean and each of the image sets, median time: {'; '.join(sentences)}."


def _draw(table: list[dict[str, Any]]) -> Plot:
    figure, axes = plot("images", "classes recovered (mean and s.d. over image sets)")
    rows = _by_search(table)
    for name in dict.fromkeys(name for name, _ in rows):
        sizes = [n for search, n in rows if search == name]
        counts = [[row["recovered"] for row in rows[name, n]] for n in sizes]
        axes.errorbar(
            sizes,
            [np.mean(c) for c in counts],
            yerr=[np.std(c, ddof=min(1, len(c) - 1)) for c in counts],
            capsize=3,
            label=name,
        )
    axes.set_xscale("log")
    axes.set_ylim(0, max(row["n_classes"] for row in table) + 0.5)
    axes.legend(loc="lower right")
    return Plot(
        figure, "Classes recovered at 80 % of a labeling's positives. Bars: s.d. over image sets."
    )


STUDY = Study(
    "how many classes does a search find again, without ever seeing one?",
    RecoverySettings,
    cells,
    measure,
    answer,
    alone=True,
)
