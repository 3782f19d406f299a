"""Do networks agree on images that nobody searched? Found, class and random labelings compared."""

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from taskdisc.config import (
    AgreementSettings,
    ImagesSettings,
    SearchSettings,
    Settings,
    settings_from,
)
from taskdisc.discovery.run import find, load_with_held_out
from taskdisc.discovery.space import Space
from taskdisc.errors import SettingError
from taskdisc.images import ImageSet
from taskdisc.labelings import key, n_positives
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.drawing import figure_of
from taskdisc.studies.study import Answer, Cell, Plot, Record, Study
from taskdisc.taskness.agreement import Agreement
from taskdisc.taskness.agreement import measure as measure_agreement


class AgreementStudySettings(Settings):
    """The images, the labelings that are compared on them, and how they were found."""

    images: ImagesSettings = ImagesSettings(n_classes=10, per_class=5)
    ratios: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 4), min_length=1)
    n_found: int = Field(3, ge=0)  # the best of a search, different from each other
    n_class: int = Field(5, ge=0)  # some classes against the others, drawn
    # Settings of the search that finds; images, ratio and seed are the study's.
    search: dict[str, Any] = Field({})
    agreement: AgreementSettings = AgreementSettings(n_pairs=3, n_random=8)
    seed: int = Field(0, ge=0)


def cells(settings: AgreementStudySettings) -> list[Cell]:
    """One per class ratio."""
    for ratio in settings.ratios:
        _search(settings, ratio)
    return [{"ratio": ratio} for ratio in settings.ratios]


def measure(
    settings: AgreementStudySettings, cell: Cell, pool: Pool, progress: Progress
) -> dict[str, Any]:
    """Agreement score and kappa of found, class and random labelings at one class ratio."""
    ratio, asked = cell["ratio"], settings.agreement
    images, others = load_with_held_out(settings.images, asked, settings.seed, progress)
    n_positives(len(images), ratio)
    by_kind = {
        "found": found_labelings(
            images, _search(settings, ratio), settings.n_found, pool, progress
        ),
        "class": class_labelings(images, settings, ratio),
    }
    by_kind = {kind: labelings for kind, labelings in by_kind.items() if len(labelings)}
    if not by_kind:
        raise SettingError(
            f"`n_found` must be at least 1 where the classes make no labeling at 1:{ratio}, got 0."
        )
    compared = np.concatenate(list(by_kind.values()))
    progress.start("agreement", len(compared) + asked.n_random, "labelings")
    scores = measure_agreement(
        images,
        compared,
        others,
        pool,
        n_pairs=asked.n_pairs,
        n_steps=asked.n_steps,
        n_random=asked.n_random,
        seed=settings.seed,
        progress=progress.advance,
    )
    progress.finish()
    by_labelings, start = {}, 0
    for kind, labelings in by_kind.items():
        part = scores.predictions[start : start + len(labelings)]
        by_labelings[kind] = _row(Agreement(part))
        start += len(labelings)
    if scores.random is not None:
        by_labelings["random"] = _row(scores.random)
    sizes = {"n_images": len(images), "n_held_out": len(others)}
    return {"labelings": by_labelings, **sizes}


def answer(settings: AgreementStudySettings, records: list[Record]) -> Answer:
    """Agreement score and kappa by ratio and kind of labeling."""
    table = [
        {
            "ratio": f"1:{record['ratio']}",
            "labelings": kind,
            "n_labelings": len(row["agreement"]),
            "n_images": record["n_images"],
            "n_held_out": record["n_held_out"],
            "agreement": float(np.mean(row["agreement"])),
            "agreement_sd": _sd(row["agreement"]),
            "chance": row["chance"],
            "kappa": float(np.mean(row["kappa"])),
            "kappa_sd": _sd(row["kappa"]),
            "kappa_lowest": min(row["kappa"]),
            "kappa_highest": max(row["kappa"]),
            "positive": row["positive"],
        }
        for record in records
        for kind, row in record["labelings"].items()
    ]
    return Answer(table, _reading(table), {"agreement": _draw(records)})


def _search(settings: AgreementStudySettings, ratio: int) -> SearchSettings:
    given = {"ratio": ratio, "seed": settings.seed, "tasks": max(settings.n_found, 1)}
    return settings_from(SearchSettings, {**settings.search, **given})


def found_labelings(
    images: ImageSet, settings: SearchSettings, n: int, pool: Pool, progress: Progress
) -> np.ndarray:
    """The best `n` different labelings of a search, uint8 [n, n_images]; fewer if it has fewer."""
    if not n:
        return np.empty((0, len(images)), dtype=np.uint8)
    found = find(Space(images, settings), pool, progress)
    return np.stack([found.trials[i].labeling for i in found.candidates])


def class_labelings(images: ImageSet, settings: AgreementStudySettings, ratio: int) -> np.ndarray:
    """Up to `n_class` labelings, uint8 [n, n_images], whose positives are some classes, drawn.

    Of those that have the ratio's number of positives; at 1:1 a labeling and its flip are the same.
    None if there are no classes.
    """
    n_pos = n_positives(len(images), ratio)
    drawn: dict[str, np.ndarray] = {}
    if images.targets:
        labels = images.targets[images.target(settings.images.target)]
        classes = np.unique(labels)
        rng = np.random.default_rng([settings.seed, ratio])
        for _ in range(100 * settings.n_class):  # there may be fewer than asked for
            n_chosen = 1 + int(rng.integers(len(classes)))
            labeling = np.isin(labels, rng.permutation(classes)[:n_chosen]).astype(np.uint8)
            if labeling.sum() == n_pos and len(drawn) < settings.n_class:
                drawn.setdefault(key(labeling), labeling)
    return np.array(list(drawn.values()), dtype=np.uint8).reshape(-1, len(images))


def _row(scores: Agreement) -> dict[str, Any]:
    return {
        "agreement": scores.mean.tolist(),
        "agreement_sem": scores.sem.tolist(),
        "chance": float(scores.chance.mean()),
        "kappa": scores.kappa.tolist(),
        "positive": float(scores.positive.mean()),
    }


def _sd(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _reading(table: list[dict[str, Any]]) -> str:
    sentences = []
    for row in table:
        if row["labelings"] != "random":
            continue
        others = [
            f"{other['labelings']} ones {other['agreement']:.2f} ({other['kappa']:.2f})"
            for other in table
            if other["ratio"] == row["ratio"] and other is not row
        ]
        sentences.append(
            f"At {row['ratio']} networks that learnt the same random labeling of "
            f"{row['n_images']} images agree on {row['agreement']:.2f} "
            f"(s.d. {row['agreement_sd']:.2f}, n = {row['n_labelings']}) of "
            f"{row['n_held_out']} others, where chance is {row['chance']:.2f}: kappa "
            f"{row['kappa']:.2f}; {', '.join(others)}."
        )
    return " ".join(sentences) or "There are no random labelings to compare with."


def _draw(records: list[Record]) -> Plot:
    figure, axes = figure_of(len(records), width=3.5, share_y=True)
    for axis, record in zip(axes, records, strict=True):
        kinds = record["labelings"]
        for x, row in enumerate(kinds.values()):
            n = len(row["agreement"])
            shift = np.linspace(-0.2, 0.2, n) if n > 1 else np.zeros(1)
            axis.errorbar(
                x + shift, row["agreement"], yerr=row["agreement_sem"], linestyle="", markersize=4
            )
            axis.hlines(row["chance"], x - 0.3, x + 0.3, colors="0.5", linestyles="--")
        axis.set_xticks(range(len(kinds)), list(kinds))
        axis.set_title(f"1:{record['ratio']}")
    axes[0].set_ylim(None, 1)
    axes[0].set_ylabel("agreement score")
    return Plot(
        figure,
        "One point per labeling, by class ratio. Bars: ± s.e. over pairs of networks. Dashed: "
        "agreement by chance.",
    )


STUDY = Study(
    "do networks agree on images that nobody searched, and more than on random labelings?",
    AgreementStudySettings,
    cells,
    measure,
    answer,
    alone=True,
)
