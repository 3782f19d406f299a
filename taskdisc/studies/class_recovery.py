"""How many classes does a search find again, without ever seeing one?"""

import time
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from taskdisc.config import ImagesSettings, SearchSettings, Settings, settings_from
from taskdisc.discovery.classes import RECOVERED, best_class
from taskdisc.discovery.run import find, load_selected
from taskdisc.discovery.space import Space
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.study import Answer, plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class RecoverySettings(Settings):
    """The image sets, and the searches that look for their classes."""

    images: ImagesSettings = ImagesSettings()
    n_classes: int = Field(10, ge=2)
    image_seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2), min_length=1)
    n_images: tuple[Annotated[int, Field(ge=20)], ...] = Field((100, 500), min_length=1)
    by_class: bool = True  # as many of each class; else drawn from all images
    # Settings of each search by its name; images, ratio and seed are the study's.
    searches: dict[str, dict[str, Any]] = Field(
        {"pixels": {}, "random features": {"closed_form": {"features": "random"}}}, min_length=1
    )
    tasks: int = Field(20, ge=1)  # labelings that a search may put forward
    min_ablation: float = Field(0.8, ge=0, le=1)  # between them
    seed: int = Field(0, ge=0)


def run(settings: RecoverySettings, pool: Pool, progress: Progress) -> Answer:
    """Classes recovered (80 % of a labeling's positives, and half of them), per image set.

    The ratio is 1:(n_classes − 1), so that a labeling has as many positives as a class has images
    on average. Labelings are put forward by what the search saw, unconfirmed.
    """
    table = []
    for n_images in settings.n_images:
        for image_seed in settings.image_seeds:
            drawn: dict[str, Any] = {"seed": image_seed, "n_images": n_images}
            if settings.by_class:
                per_class = n_images // settings.n_classes
                drawn |= {"n_images": None, "per_class": per_class}
                drawn |= {"n_classes": settings.n_classes}
            images = load_selected(settings.images.model_copy(update=drawn), progress)
            target = images.target(settings.images.target)
            numbers, names = images.targets[target], images.classes[target]
            for name, given in settings.searches.items():
                common = {
                    "ratio": settings.n_classes - 1,
                    "tasks": settings.tasks,
                    "min_ablation": settings.min_ablation,
                    "seed": settings.seed,
                }
                search = settings_from(SearchSettings, {**common, **given})
                start = time.perf_counter()
                space = Space(images, search)
                found = find(space, pool, progress)
                seconds = time.perf_counter() - start
                matches = [
                    best_class(found.trials[i].labeling, numbers, names) for i in found.candidates
                ]
                table.append(
                    {
                        "search": name,
                        "n_images": len(images),
                        "images_seed": image_seed,
                        "n_classes": settings.n_classes,
                        "recovered": len({m["class"] for m in matches if m["share"] >= RECOVERED}),
                        "half": len({m["class"] for m in matches if m["share"] >= 0.5}),
                        "put_forward": len(matches),
                        "labelings": len(found.trials),
                        "seconds": round(seconds, 2),
                    }
                )
    return Answer(table, _reading(table), {"recovered": _draw(table)})


def _cells(table: list[dict[str, Any]]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    cells: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in table:
        cells.setdefault((row["search"], row["n_images"]), []).append(row)
    return cells


def _reading(table: list[dict[str, Any]]) -> str:
    sentences = [
        f"'{name}' recovers {np.mean([row['recovered'] for row in rows]):.1f} of "
        f"{rows[0]['n_classes']} classes on {n_images} images "
        f"({', '.join(str(row['recovered']) for row in rows)}) in "
        f"{np.median([row['seconds'] for row in rows]):.2g} s"
        for (name, n_images), rows in _cells(table).items()
    ]
    return f"Mean and each of the image sets, median time: {'; '.join(sentences)}."


def _draw(table: list[dict[str, Any]]) -> "Figure":
    figure, axes = plot("images", "classes recovered (mean and s.d. over image sets)")
    cells = _cells(table)
    for name in dict.fromkeys(name for name, _ in cells):
        sizes = [n for search, n in cells if search == name]
        counts = [[row["recovered"] for row in cells[name, n]] for n in sizes]
        axes.errorbar(
            sizes,
            [np.mean(c) for c in counts],
            yerr=[np.std(c) for c in counts],
            marker="o",
            capsize=3,
            label=name,
        )
    axes.set_xscale("log")
    axes.set_ylim(0, max(row["n_classes"] for row in table) + 0.5)
    axes.legend(loc="lower right")
    return figure
