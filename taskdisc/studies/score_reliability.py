"""How much of a score is noise? Score a panel of labelings twice, independently, and compare."""

from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from taskdisc.config import ImagesSettings, NamedProtocol, Settings
from taskdisc.images import ImageSet
from taskdisc.labelings import encode, n_positives, random_labelings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.drawing import plot
from taskdisc.studies.images import drawn
from taskdisc.studies.study import Answer, Cell, Plot, Record, Study
from taskdisc.taskness.protocol import Protocol, protocol_from
from taskdisc.taskness.score import TrainedScorer


class PanelSettings(Settings):
    """Labelings of all kinds, from the unlearnable to the learnable, over some images."""

    images: ImagesSettings = ImagesSettings()
    ratio: int = Field(4, ge=1)  # negatives to one positive
    n_random: int = Field(10, ge=3)  # random labelings
    n_components: int = Field(3, ge=0)  # principal components, their highest entries positive
    n_swapped: int = Field(7, ge=0)  # class labelings with 1 to 5 positives swapped
    seed: int = Field(0, ge=0)


class ReliabilitySettings(PanelSettings):
    """The panel, and the protocols that are compared on it."""

    trainings: tuple[Annotated[int, Field(ge=1)], ...] = Field((3, 6), min_length=1)
    protocols: dict[str, NamedProtocol] = Field(
        min_length=1,
        default={
            "stratified": protocol_from("stratified"),
            "source": protocol_from("source"),
        },
    )


def cells(settings: ReliabilitySettings) -> list[Cell]:
    """Two scorings by each protocol."""
    return [
        {"protocol": name, "repeat": repeat} for name in settings.protocols for repeat in (0, 1)
    ]


def measure(
    settings: ReliabilitySettings, cell: Cell, pool: Pool, progress: Progress
) -> dict[str, Any]:
    """The taskness of every training of every labeling of the panel, and the labelings' kinds."""
    images = drawn(settings.images)
    panel, kinds = make_panel(images, settings)
    protocol = settings.protocols[cell["protocol"]]
    full = replace(protocol, n_splits=max(settings.trainings))
    seed = 2 * settings.seed + cell["repeat"]
    per_split = trained_on(images, panel, full, seed, pool, progress)
    steps = protocol.steps(len(images))
    return {"steps": steps, "kinds": kinds.tolist(), "per_split": per_split.tolist()}


def trained_on(
    images: ImageSet,
    panel: np.ndarray,
    protocol: Protocol,
    seed: int,
    pool: Pool,
    progress: Progress,
) -> np.ndarray:
    """Taskness of every training of some labelings, [n_labelings, n_splits]."""
    progress.start("score", len(panel), "labelings")
    parts = []
    for part in TrainedScorer(images, protocol, seed, pool).score(panel):
        parts.append(part.per_split)
        progress.advance(len(part.per_split))
    progress.finish()
    return np.concatenate(parts)


def answer(settings: ReliabilitySettings, records: list[Record]) -> Answer:
    """Spearman correlation between two independent scorings, against trainings per labeling.

    Beside it: the mean taskness of the random labelings, which should be 0, that of the class
    labelings, and the correlation with an independent scoring by the first protocol that trains
    for 100 steps, which says whether a cheaper protocol still measures the same thing.
    """
    kinds = np.array(records[0]["kinds"])
    steps = {record["protocol"]: record["steps"] for record in records}
    scored = {
        (record["protocol"], record["repeat"]): np.array(record["per_split"]) for record in records
    }
    long = next((name for name in steps if steps[name] >= 100), None)
    rng = np.random.default_rng(settings.seed)
    table = []
    for name in settings.protocols:
        for n in settings.trainings:
            a, b = (scored[name, repeat][:, :n].mean(axis=1) for repeat in (0, 1))
            random = a[kinds == "random"]
            classes = a[kinds == "class"]
            table.append(
                {
                    "protocol": name,
                    "trainings": n,
                    "steps": steps[name],
                    "spearman": spearman(a, b),
                    "spearman_sd": bootstrap_sd(a, b, rng),
                    "with_100_steps": spearman(a, scored[long, 1].mean(axis=1))
                    if long
                    else float("nan"),
                    "random_mean": float(random.mean()),
                    "random_sem": float(random.std(ddof=1) / len(random) ** 0.5),
                    "class_mean": float(classes.mean()) if len(classes) else float("nan"),
                    "n_labelings": len(kinds),
                }
            )
    return Answer(table, _reading(table), {"reliability": _draw(table)})


def make_panel(images: ImageSet, settings: PanelSettings) -> tuple[np.ndarray, np.ndarray]:
    """The labelings uint8 [n_labelings, n_images] of the panel and the kind of each.

    Random labelings; principal components of the pixels, thresholded to the ratio; the class
    labelings that have the ratio's number of positives; those with 1 to 5 positives swapped. Each
    labeling once: a coarse class may hold the images of a fine one.
    """
    rng = np.random.default_rng([settings.seed, 1])
    n_images = len(images)
    n_pos = n_positives(n_images, settings.ratio)
    pixels = images.images.reshape(n_images, -1) / 255.0
    components = np.linalg.svd(pixels - pixels.mean(axis=0), full_matrices=False)[0]
    classes = [
        (labels == number).astype(np.uint8)
        for labels in images.targets.values()
        for number in np.unique(labels)
        if (labels == number).sum() == n_pos
    ]
    swapped = []
    for i in range(settings.n_swapped if classes else 0):
        labeling = classes[i % len(classes)].copy()
        n_swaps = min(1 + i * 5 // settings.n_swapped, n_pos, n_images - n_pos)
        for value in (0, 1):
            chosen = rng.choice(np.flatnonzero(classes[i % len(classes)] == value), n_swaps, False)
            labeling[chosen] = 1 - value
        swapped.append(labeling)
    by_kind = {
        "random": list(random_labelings(settings.n_random, n_images, n_pos, rng)),
        "component": [
            encode(components[:, i], n_pos) for i in range(min(settings.n_components, n_images))
        ],
        "class": classes,
        "swapped": swapped,
    }
    kinds = np.repeat(list(by_kind), [len(labelings) for labelings in by_kind.values()])
    panel = np.array([row for labelings in by_kind.values() for row in labelings])
    first = np.sort(np.unique(panel, axis=0, return_index=True)[1])
    return panel[first], kinds[first]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def bootstrap_sd(a: np.ndarray, b: np.ndarray, rng: np.random.Generator, n: int = 200) -> float:
    """Standard deviation of the correlation over resampled panels."""
    draws = rng.integers(0, len(a), (n, len(a)))
    return float(np.std([spearman(a[draw], b[draw]) for draw in draws], ddof=1))


def _reading(table: list[dict[str, Any]]) -> str:
    best = max(table, key=lambda row: (row["trainings"], row["spearman"]))
    return (
        f"Two independent scorings of {best['n_labelings']} labelings agree best with "
        f"'{best['protocol']}': Spearman {best['spearman']:.2f} ± {best['spearman_sd']:.2f} at "
        f"{best['trainings']} trainings per labeling; random labelings then score "
        f"{best['random_mean']:.3f} ± {best['random_sem']:.3f}."
    )


def _draw(table: list[dict[str, Any]]) -> Plot:
    figure, axes = plot("trainings per labeling", "Spearman correlation of two scorings")
    for name in dict.fromkeys(row["protocol"] for row in table):
        rows = [row for row in table if row["protocol"] == name]
        axes.errorbar(
            [row["trainings"] for row in rows],
            [row["spearman"] for row in rows],
            yerr=[row["spearman_sd"] for row in rows],
            capsize=3,
            label=name,
        )
    axes.set_ylim(0, 1)
    axes.legend(loc="lower right")
    return Plot(
        figure,
        "Correlation of two independent scorings of the same labelings. Bars: bootstrap s.d. over "
        "the labelings.",
    )


STUDY = Study(
    "how much of a score is noise, and how many trainings make it reliable?",
    ReliabilitySettings,
    cells,
    measure,
    answer,
    check=lambda settings: drawn(settings.images),
    alone=True,
)
