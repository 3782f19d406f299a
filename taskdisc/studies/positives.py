"""Is it the ratio or the number of positives? Positives fixed, negatives grow; two read-outs."""

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from taskdisc.config import ImagesSettings, NamedProtocol, Settings
from taskdisc.errors import SettingError
from taskdisc.labelings import random_labelings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.drawing import MARKERS, band, figure_of
from taskdisc.studies.estimates import interval, mean_and_sem, sign_of
from taskdisc.studies.images import check_folds, check_not_given, one_against_rest
from taskdisc.studies.study import ALL_IMAGES, Answer, Cell, Plot, Record, Study
from taskdisc.taskness.score import (
    Splits,
    all_splits,
    check_scorable,
    losses_of,
    mean_losses,
    read_out,
    scores_from,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

READ_OUTS = {"taskness": "taskness", "auc": "area under the ROC curve"}
"""What is read out of the same trainings, and its name on an axis."""

CHANCE = {"taskness": 0.0, "auc": 0.5}

_LEAST_LOSS = 1e-12
"""A loss [nats] below which a network is as sure as float32 can tell."""


class PositivesSettings(Settings):
    """How many positives are crossed with which ratios, and how each is scored."""

    images: ImagesSettings = ImagesSettings()
    n_positives: tuple[Annotated[int, Field(ge=2)], ...] = Field((10, 20), min_length=2)
    ratios: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 3, 9), min_length=2)
    n_seeds: int = Field(3, ge=2)  # image sets, each of another draw, of each number and ratio
    n_random: int = Field(1, ge=1)  # random labelings of each image set
    protocol: NamedProtocol = ALL_IMAGES
    seed: int = Field(0, ge=0)

    @field_validator("n_positives", "ratios")
    @classmethod
    def _differ(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(values)) < len(values):
            raise SettingError(
                f"`n_positives` and `ratios` must be different numbers, got {list(values)}."
            )
        return tuple(sorted(values))


def cells(settings: PositivesSettings) -> list[Cell]:
    """One per number of positives, ratio and repeat, the most images first.

    Raises:
        SettingError: fewer positives than folds, so that some would validate on none.
    """
    check_not_given(settings.images, "n_images", "n_classes", "per_class")
    n_images = settings.n_positives[-1] * (settings.ratios[-1] + 1)
    check_folds(settings.protocol, n_images)
    if settings.n_positives[0] < settings.protocol.n_folds:
        raise SettingError(
            "`n_positives` must be at least `protocol.n_folds` = "
            f"{settings.protocol.n_folds}, for every fold to have one, got "
            f"{settings.n_positives[0]}."
        )
    crossed = [
        {"n_positives": n_pos, "ratio": ratio, "seed": k}
        for n_pos in settings.n_positives
        for ratio in settings.ratios
        for k in range(settings.n_seeds)
    ]
    return sorted(crossed, key=lambda cell: -cell["n_positives"] * (cell["ratio"] + 1))


def _check(settings: PositivesSettings) -> None:
    n_pos, ratio = settings.n_positives[-1], settings.ratios[-1]
    one_against_rest(settings.images, n_pos, n_pos * ratio, settings.images.seed, n_pos)


def measure(
    settings: PositivesSettings, cell: Cell, pool: Pool, progress: Progress
) -> dict[str, Any]:
    """Both read-outs and curves of one class against the rest, and of random labelings."""
    from taskdisc.taskness.convolutions import lay_out
    from taskdisc.taskness.lenet import standardised

    n_pos, k, device = cell["n_positives"], cell["seed"], pool.devices[0]
    images, labeling = one_against_rest(
        settings.images,
        n_pos,
        n_pos * cell["ratio"],
        settings.images.seed + k,
        settings.n_positives[-1],
    )
    rng = np.random.default_rng([settings.seed, k, n_pos, cell["ratio"]])
    random = random_labelings(settings.n_random, len(images), n_pos, rng)
    protocol = settings.protocol
    n_steps = protocol.steps(len(images))
    splits = all_splits(protocol, np.vstack([labeling, random]), settings.seed + k)
    check_scorable(len(images), protocol, pool)
    patches = lay_out(standardised(np.asarray(images.images)).to(device))
    means, areas, done = [], [], 0
    for losses in losses_of(patches, splits, n_steps, protocol.lr, device):
        part = splits.part(done, done + losses.shape[1])
        means.append(mean_losses(losses, part))
        areas.append(validation_auc(losses.cpu().numpy(), part))
        done += len(part.labels)
    scores = scores_from(np.concatenate(means, axis=1), splits, protocol, n_steps)
    curves = np.concatenate(areas).reshape(-1, protocol.n_splits, n_steps + 1)
    auc = -read_out(-curves).mean(axis=1)
    relative = scores.validation[0] / scores.baseline[0][:, None]
    return {
        "n_images": len(images),
        "taskness": float(scores.taskness[0]),
        "auc": float(auc[0]),
        "random_taskness": scores.taskness[1:].tolist(),
        "random_auc": auc[1:].tolist(),
        "taskness_curve": relative.mean(axis=0).round(5).tolist(),
        "auc_curve": curves[0].mean(axis=0).round(5).tolist(),
    }


def validation_auc(losses: np.ndarray, splits: Splits) -> np.ndarray:
    """Area under the ROC curve of the validation images after every step [n_models, n_steps + 1].

    The share of pairs of a positive and a negative in which the network is surer of the positive,
    ties half: 0.5 is chance, 1 is solved. Whatever the share of positives, it asks for the order of
    the images alone.

    Args:
        losses: −log p(label) of each image [n_steps + 1, n_models, n_images].
        splits: Those of the networks; each validation split has both classes.
    """
    from scipy.stats import rankdata

    # The log-odds of the label, turned for negatives: of the same order as the probability, and
    # finer near 1, up to the 16 or so that float32 losses can tell.
    odds = -np.log(np.expm1(np.maximum(losses.astype(np.float64), _LEAST_LOSS)))
    odds = np.where(splits.labels == 1, odds, -odds)
    areas = []
    for model, validates in enumerate(splits.validation):
        positive = splits.labels[model, validates] == 1
        ranks = rankdata(odds[:, model, validates], axis=1)
        n_pos, n_neg = positive.sum(), (~positive).sum()
        above = ranks[:, positive].sum(axis=1) - n_pos * (n_pos + 1) / 2
        areas.append(above / (n_pos * n_neg))
    return np.array(areas)


def answer(settings: PositivesSettings, records: list[Record]) -> Answer:
    """Both read-outs by number of positives and ratio, and what each of the two does to them."""
    found = {(r["n_positives"], r["ratio"], r["seed"]): r for r in records}
    shape = (settings.n_seeds, len(settings.n_positives), len(settings.ratios))
    crossed = {
        name: np.array(
            [
                # Less random labelings of the same images: the best of a noisy curve is
                # optimistic, and the more so the fewer positives validate.
                found[n_pos, ratio, k][name] - np.mean(found[n_pos, ratio, k][f"random_{name}"])
                for k in range(settings.n_seeds)
                for n_pos in settings.n_positives
                for ratio in settings.ratios
            ]
        ).reshape(shape)
        for name in READ_OUTS
    }
    fits = {name: fitted(settings, values) for name, values in crossed.items()}
    table = [
        _row(n_pos, ratio, [found[n_pos, ratio, k] for k in range(settings.n_seeds)])
        for n_pos in settings.n_positives
        for ratio in settings.ratios
    ]
    plots = {
        "positives": _draw_read_outs(settings, found),
        "curves": _draw_curves(settings, found),
    }
    return Answer(table, _reading(settings, fits, table), plots)


def _row(n_pos: int, ratio: int, group: list[Record]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "n_positives": n_pos,
        "ratio": ratio,
        "n_images": group[0]["n_images"],
        "n_seeds": len(group),
    }
    for name in READ_OUTS:
        mean, sem = mean_and_sem(np.array([record[name] for record in group]))
        random = np.concatenate([record[f"random_{name}"] for record in group])
        row |= {
            name: float(mean),
            f"{name}_sem": float(sem),
            f"random_{name}": float(random.mean()),
            f"random_{name}_sd": float(random.std(ddof=1)),
        }
    return row


def fitted(settings: PositivesSettings, values: np.ndarray) -> np.ndarray:
    """What doubling the positives and doubling the negatives adds, in each repeat [n_seeds, 2].

    Least squares of values [n_seeds, n_numbers, n_ratios] on an intercept, log2 of the positives
    and log2 of the negatives.
    """
    n_pos, ratios = np.meshgrid(settings.n_positives, settings.ratios, indexing="ij")
    design = np.stack(
        [np.ones(n_pos.size), np.log2(n_pos).ravel(), np.log2(n_pos * ratios).ravel()], axis=1
    )
    return values.reshape(len(values), -1) @ np.linalg.pinv(design).T[:, 1:]


def _reading(
    settings: PositivesSettings, fits: dict[str, np.ndarray], table: list[dict[str, Any]]
) -> str:
    sentences = []
    for name, fit in fits.items():
        more = {
            1: "the positives matter more",
            -1: "the negatives matter more",
            0: "which of them matters more cannot be told",
        }[sign_of(np.abs(fit[:, 0]) - np.abs(fit[:, 1]))]
        sentences.append(
            f"By {READ_OUTS[name]}, doubling the positives while the negatives stay "
            f"{_effect(fit[:, 0])}, doubling the negatives while the positives stay "
            f"{_effect(fit[:, 1])}; {more}"
        )
    random = ", ".join(
        f"{np.mean([row[f'random_{name}'] for row in table]):.3f} by {READ_OUTS[name]}"
        for name in READ_OUTS
    )
    return (
        f"{'. '.join(sentences)}. (Both read-outs less those of random labelings of the same "
        f"images, which have {random}; least squares over {len(table)} combinations of "
        f"{settings.n_positives[0]} to {settings.n_positives[-1]} positives and ratios of "
        f"1:{settings.ratios[0]} to 1:{settings.ratios[-1]}; in brackets 95 % intervals over "
        f"{settings.n_seeds} repeats with other classes and images. To double both is to keep the "
        "ratio.)"
    )


def _effect(estimates: np.ndarray) -> str:
    low, high = interval(estimates)
    verb = "adds" if estimates.mean() >= 0 else "takes"
    unsure = "" if sign_of(estimates) else ", so it may do nothing"
    return f"{verb} {abs(estimates.mean()):.3f} [{low:+.3f}, {high:+.3f}]{unsure}"


def _draw_read_outs(
    settings: PositivesSettings,
    found: dict[tuple[int, int, int], Record],
) -> Plot:
    figure, both = figure_of(2, width=5.0)
    for axes, name in zip(both, READ_OUTS, strict=True):
        for n_pos in settings.n_positives:
            values = np.array(
                [
                    [found[n_pos, ratio, k][name] for ratio in settings.ratios]
                    for k in range(settings.n_seeds)
                ]
            )
            band(axes, settings.ratios, values, f"{n_pos} positives")
        random = [
            np.mean([np.mean(r[f"random_{name}"]) for r in found.values() if r["ratio"] == ratio])
            for ratio in settings.ratios
        ]
        axes.plot(settings.ratios, random, ":", color="0.4", marker="x", label="random labelings")
        axes.axhline(CHANCE[name], color="0.6", linewidth=1, linestyle="-", marker="")
        _ratio_axis(axes, settings.ratios)
        axes.set_ylabel(READ_OUTS[name])
    labels = both[0].get_legend_handles_labels()
    figure.legend(*labels, loc="outside lower center", ncols=len(labels[0]))
    return Plot(
        figure,
        "Both read-outs of the same trainings against the class ratio: as a curve goes to the "
        f"right, its negatives grow. Bands: ± s.e. over {settings.n_seeds} repeats with other "
        "classes and images. Dotted: random labelings. Grey line: chance.",
    )


def _ratio_axis(axes: "Axes", ratios: tuple[int, ...]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(ratios, [f"1:{ratio}" for ratio in ratios])
    axes.minorticks_off()
    axes.set_xlabel("class ratio")


def _draw_curves(settings: PositivesSettings, found: dict[tuple[int, int, int], Record]) -> Plot:
    from matplotlib import colormaps

    n_pos = settings.n_positives[len(settings.n_positives) // 2]
    figure, both = figure_of(2, width=5.0)
    names = {"taskness": "validation cross-entropy / baseline b", "auc": READ_OUTS["auc"]}
    for axes, (name, axis_name) in zip(both, names.items(), strict=True):
        for rank, ratio in enumerate(settings.ratios):
            curves = np.array(
                [found[n_pos, ratio, k][f"{name}_curve"] for k in range(settings.n_seeds)]
            )
            steps = np.arange(curves.shape[1])
            band(
                axes,
                steps,
                curves,
                f"1:{ratio}",
                color=colormaps["viridis"](0.9 * rank / (len(settings.ratios) - 1)),
                marker=MARKERS[rank % len(MARKERS)],
                markevery=max(1, len(steps) // 8),
                linestyle="-",
            )
        axes.axhline(1 if name == "taskness" else 0.5, color="0.6", linestyle="-", marker="")
        axes.set(xlabel="training step", ylabel=axis_name)
    both[0].set_ylim(None, 1.6)
    both[1].legend()
    return Plot(
        figure,
        f"Validation curves of labelings with {n_pos} positives, by class ratio, as both read-outs "
        f"see them. Bands: ± s.e. over {settings.n_seeds} repeats with other classes and images. "
        "Grey line: blind on the left, chance on the right.",
    )


STUDY = Study(
    "is it the ratio or the number of positives?",
    PositivesSettings,
    cells,
    measure,
    answer,
    check=_check,
)
