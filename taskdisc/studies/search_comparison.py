"""Which search finds the most learnable labeling, and how soon?"""

import time
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from taskdisc.config import ImagesSettings, SearchSettings, Settings
from taskdisc.discovery.run import find
from taskdisc.discovery.space import Space
from taskdisc.errors import SettingError
from taskdisc.labelings import n_positives, random_labelings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.drawing import plot
from taskdisc.studies.images import drawn
from taskdisc.studies.study import Answer, Cell, Plot, Record, Study
from taskdisc.taskness.protocol import protocol_from
from taskdisc.taskness.score import TrainedScorer

FRESH = 1_000_003
"""Added to the seed for the confirming splits, so that no search has used them."""


RANDOM = "random labelings"
"""Stands among the searches of a cell for labelings that nothing has found."""


class ComparisonSettings(Settings):
    """The searches, by name, and the image sets that each of them gets."""

    images: ImagesSettings = ImagesSettings()
    image_seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1), min_length=1)
    searches: dict[str, SearchSettings] = Field(
        min_length=1,
        default={
            "the source work's, cut short": SearchSettings(
                proposer="TwoPointsDE",
                scorer="trained",
                protocol=protocol_from("source"),
                budget=60,
            ),
            "the default": SearchSettings(),
        },
    )
    n_random: int = Field(10, ge=2)  # random labelings beside them
    n_splits: int = Field(20, ge=2)  # fresh trainings per labeling, by the default protocol
    seed: int = Field(0, ge=0)

    @field_validator("searches")
    @classmethod
    def _of_one_ratio(cls, searches: dict[str, SearchSettings]) -> dict[str, SearchSettings]:
        if RANDOM in searches:
            raise SettingError(f"`searches` must have other names than {RANDOM!r}; rename it.")
        ratios = sorted({search.ratio for search in searches.values()})
        if len(ratios) > 1:
            raise SettingError(
                f"`searches` must have one ratio, to be held against the same random labelings, "
                f"got {', '.join(map(str, ratios))}."
            )
        return searches


def cells(settings: ComparisonSettings) -> list[Cell]:
    """One per image set and search, and one per image set for random labelings."""
    return [
        {"images_seed": seed, "search": name}
        for seed in settings.image_seeds
        for name in (*settings.searches, RANDOM)
    ]


def measure(
    settings: ComparisonSettings, cell: Cell, pool: Pool, progress: Progress
) -> dict[str, Any]:
    """The best labeling of one search, the wall time [s] that it took, and its confirmed taskness.

    All labelings of one image set are confirmed on the same fresh splits, by the default
    protocol whatever the search scored by; so are random labelings, as the mark of nothing found.
    The images are those of the study, not of a search; all searches have one ratio.
    """
    images = drawn(settings.images, seed=cell["images_seed"])
    record: dict[str, Any] = {}
    if cell["search"] == RANDOM:
        ratio = next(iter(settings.searches.values())).ratio
        labelings = random_labelings(
            settings.n_random,
            len(images),
            n_positives(len(images), ratio),
            np.random.default_rng([settings.seed, cell["images_seed"]]),
        )
    else:
        start = time.perf_counter()
        search = settings.searches[cell["search"]].model_copy(update={"seed": settings.seed})
        found = find(Space(images, search), pool, progress)
        best = found.trials[found.candidates[0]]
        record |= {
            "labelings": len(found.trials),
            "seconds": round(time.perf_counter() - start, 3),
            "seen": best.taskness,
            "positives": " ".join(map(str, np.flatnonzero(best.labeling))),
        }
        labelings = best.labeling[None]
    protocol = replace(protocol_from("stratified"), n_splits=settings.n_splits)
    scorer = TrainedScorer(images, protocol, settings.seed + FRESH, pool)
    progress.start("confirm", len(labelings), "labelings")
    means, sems = [], []
    for part in scorer.score(labelings):
        means += part.taskness.tolist()
        sems += part.sem.tolist()
        progress.advance(len(part.per_split))
    progress.finish()
    return {**record, "confirmed": means, "confirmed_sem": sems}


def answer(settings: ComparisonSettings, records: list[Record]) -> Answer:
    """Search time and confirmed taskness of every search's best labeling, per image set."""
    random = {
        record["images_seed"]: record["confirmed"]
        for record in records
        if record["search"] == RANDOM
    }
    table = [
        {
            "search": record["search"],
            "images_seed": record["images_seed"],
            "labelings": record["labelings"],
            "seconds": record["seconds"],
            "seen": record["seen"],
            "confirmed": record["confirmed"][0],
            "confirmed_sem": record["confirmed_sem"][0],
            "random_mean": float(np.mean(random[record["images_seed"]])),
            "random_sd": float(np.std(random[record["images_seed"]], ddof=1)),
            "positives": record["positives"],
        }
        for record in records
        if record["search"] != RANDOM
    ]
    return Answer(table, _reading(table), {"searches": _draw(table)})


def _reading(table: list[dict[str, Any]]) -> str:
    sentences = []
    for name in dict.fromkeys(row["search"] for row in table):
        rows = [row for row in table if row["search"] == name]
        confirmed = np.array([row["confirmed"] for row in rows])
        spread = f" (s.d. {confirmed.std(ddof=1):.3f})" if len(rows) > 1 else ""
        seconds = np.median([row["seconds"] for row in rows])
        sentences.append(
            f"'{name}' finds labelings of confirmed taskness {confirmed.mean():.3f}{spread} "
            f"in {seconds:.3g} s"
        )
    n = len({row["images_seed"] for row in table})
    random = np.mean([row["random_mean"] for row in table])
    return f"Over {n} image sets: {'; '.join(sentences)}; random labelings have {random:.3f}."


def _draw(table: list[dict[str, Any]]) -> Plot:
    figure, axes = plot("time of the search [s]", "confirmed taskness of its best labeling")
    for name in dict.fromkeys(row["search"] for row in table):
        rows = [row for row in table if row["search"] == name]
        axes.errorbar(
            [row["seconds"] for row in rows],
            [row["confirmed"] for row in rows],
            yerr=[row["confirmed_sem"] for row in rows],
            linestyle="",
            capsize=3,
            label=name,
        )
    axes.axhline(np.mean([row["random_mean"] for row in table]), color="grey", linestyle="--")
    axes.set_xscale("log")
    axes.legend()
    return Plot(
        figure,
        "One point per search and image set. Bars: ± s.e. over fresh splits. Dashed: random "
        "labelings.",
    )


STUDY = Study(
    "which search finds the most learnable labeling, and how soon?",
    ComparisonSettings,
    cells,
    measure,
    answer,
    alone=True,
)
