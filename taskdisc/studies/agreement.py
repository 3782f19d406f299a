"""Do networks agree on images that nobody searched? Found, class and random labelings compared."""

from typing import TYPE_CHECKING, Annotated, Any

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
from taskdisc.studies.study import Answer
from taskdisc.taskness.agreement import Agreement, measure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class AgreementStudySettings(Settings):
    """The images, the labelings that are compared on them, and how they were found."""

    images: ImagesSettings = ImagesSettings(n_classes=10, per_class=5)
    ratios: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 4), min_length=1)
    n_found: int = Field(3, ge=0)  # the best of a search, different from each other
    n_class: int = Field(10, ge=0)  # some classes against the others, drawn
    # Settings of the search that finds; images, ratio and seed are the study's.
    search: dict[str, Any] = Field({})
    agreement: AgreementSettings = AgreementSettings(n_random=10)
    seed: int = Field(0, ge=0)


def run(settings: AgreementStudySettings, pool: Pool, progress: Progress) -> Answer:
    """Agreement score and kappa of found, class and random labelings, per class ratio."""
    searches = {
        ratio: settings_from(
            SearchSettings,
            {
                **settings.search,
                "ratio": ratio,
                "seed": settings.seed,
                "tasks": max(settings.n_found, 1),
            },
        )
        for ratio in settings.ratios
    }
    asked = settings.agreement
    images, others = load_with_held_out(settings.images, asked, settings.seed, progress)
    for ratio in settings.ratios:
        n_positives(len(images), ratio)
    measured: dict[tuple[int, str], Agreement] = {}
    for ratio, search in searches.items():
        by_kind = {
            "found": found_labelings(images, search, settings.n_found, pool, progress),
            "class": class_labelings(images, settings, ratio),
        }
        by_kind = {kind: labelings for kind, labelings in by_kind.items() if len(labelings)}
        if not by_kind:
            raise SettingError(
                f"`n_found` must be at least 1 where the classes make no labeling at 1:{ratio}, "
                "got 0."
            )
        compared = np.concatenate(list(by_kind.values()))
        progress.start(f"agreement 1:{ratio}", len(compared) + asked.n_random, "labelings")
        scores = measure(
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
        start = 0
        for kind, labelings in by_kind.items():
            part = scores.predictions[start : start + len(labelings)]
            measured[ratio, kind] = Agreement(part)
            start += len(labelings)
        if scores.random is not None:
            measured[ratio, "random"] = scores.random
    table = [_row(f"1:{ratio}", kind, len(images), a) for (ratio, kind), a in measured.items()]
    return Answer(table, _reading(table), {"agreement": _draw(measured)})


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


def _row(ratio: str, kind: str, n_images: int, scores: Agreement) -> dict[str, Any]:
    def sd(values: np.ndarray) -> float:
        return float(values.std(ddof=1)) if len(values) > 1 else float("nan")

    return {
        "ratio": ratio,
        "labelings": kind,
        "n_labelings": len(scores.mean),
        "n_images": n_images,
        "n_held_out": scores.predictions.shape[3],
        "agreement": float(scores.mean.mean()),
        "agreement_sd": sd(scores.mean),
        "chance": float(scores.chance.mean()),
        "kappa": float(scores.kappa.mean()),
        "kappa_sd": sd(scores.kappa),
        "kappa_lowest": float(scores.kappa.min()),
        "kappa_highest": float(scores.kappa.max()),
        "positive": float(scores.positive.mean()),
    }


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


def _draw(measured: dict[tuple[int, str], Agreement]) -> "Figure":
    from matplotlib.figure import Figure

    ratios = list(dict.fromkeys(ratio for ratio, _ in measured))
    figure = Figure(figsize=(3 * len(ratios) + 1, 4), layout="constrained")
    axes = figure.subplots(1, len(ratios), sharey=True, squeeze=False)[0]
    for axis, ratio in zip(axes, ratios, strict=True):
        kinds = [kind for r, kind in measured if r == ratio]
        for x, kind in enumerate(kinds):
            scores = measured[ratio, kind]
            shift = np.linspace(-0.2, 0.2, len(scores.mean)) if len(scores.mean) > 1 else [0.0]
            axis.errorbar(x + np.asarray(shift), scores.mean, yerr=scores.sem, fmt="o", ms=4)
            axis.hlines(scores.chance.mean(), x - 0.3, x + 0.3, colors="0.5", linestyles="--")
        axis.set_xticks(range(len(kinds)), kinds)
        axis.set_title(f"1:{ratio}")
        axis.grid(alpha=0.3, axis="y")
    axes[0].set_ylim(None, 1)
    axes[0].set_ylabel("agreement score (dashed: by chance)")
    return figure
