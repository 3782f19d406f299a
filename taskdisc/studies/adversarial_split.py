"""What if a discovered task is turned against a known one? Train where they agree, test elsewhere.

Atanov et al. 2022, "Task Discovery: Finding the Tasks that Neural Networks Generalize on": a
network that is trained where a discovered task and the known labels coincide may prefer the
discovered one, and then fails where they differ.
"""

from typing import Any

import numpy as np
from pydantic import Field, model_validator

from taskdisc.config import ImagesSettings, NamedProtocol, SearchSettings, Settings, settings_from
from taskdisc.discovery.run import find
from taskdisc.discovery.space import Space
from taskdisc.errors import SettingError
from taskdisc.images import ImageSet
from taskdisc.labelings import from_hex, random_labelings, to_hex
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.drawing import figure_of
from taskdisc.studies.estimates import mean_and_sem, plus_minus, sign_of
from taskdisc.studies.images import drawn, of_classes, source_of
from taskdisc.studies.study import Answer, Cell, Plot, Record, Study
from taskdisc.taskness.confirm import t_task
from taskdisc.taskness.protocol import protocol_from
from taskdisc.taskness.score import TrainedScorer, concatenated, population_size

SPLITS = {
    "adversarial": "discovered labeling",
    "like adversarial": "random split\nof its sizes",
    "control": "random labeling",
    "like control": "random split\nof its sizes",
}
"""What splits the images, each kind before the random splits of its sizes; and the plot's names."""


class AdversarialSplitSettings(Settings):
    """The images, the known task, the search for another, and the networks."""

    images: ImagesSettings = ImagesSettings(n_classes=10, per_class=10)
    # Classes of the known task's positives, half of those drawn; drawn by themselves by default.
    positive_classes: tuple[str, ...] = ()
    # Settings of the search that discovers; images, ratio and seed are the study's.
    search: dict[str, Any] = Field({"tasks": 5})
    least_images: int = Field(10, ge=4)  # where both tasks agree, and where they do not
    n_models: int = Field(5, ge=1)  # networks per split
    n_random_splits: int = Field(2, ge=1)  # and as many random labelings
    n_random: int = Field(10, ge=5)  # random labelings for T_task, which the discovered must exceed
    protocol: NamedProtocol = protocol_from("stratified")  # of the discovered labeling's taskness
    n_steps: int = Field(100, ge=1)
    n_seeds: int = Field(3, ge=2)  # repeats: other images, classes and networks
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _classes_halve(self) -> "AdversarialSplitSettings":
        n_classes = self.images.n_classes
        if n_classes is None or self.images.per_class is None or n_classes % 2:
            raise SettingError(
                "`images.n_classes` and `images.per_class` must be given, the classes an even "
                "number, for the known task is half of them against the other half, got "
                f"{n_classes} and {self.images.per_class}."
            )
        n_named = len(set(self.positive_classes))
        if self.positive_classes and 2 * n_named != n_classes:
            raise SettingError(
                f"`positive_classes` must be {n_classes // 2} different classes, half of "
                f"`images.n_classes`, got {n_named}."
            )
        _search(self, self.seed)
        return self


def _search(settings: AdversarialSplitSettings, seed: int) -> SearchSettings:
    return settings_from(SearchSettings, {**settings.search, "ratio": 1, "seed": seed})


def cells(settings: AdversarialSplitSettings) -> list[Cell]:
    """One per repeat."""
    return [{"seed": settings.seed + repeat} for repeat in range(settings.n_seeds)]


def measure(
    settings: AdversarialSplitSettings, cell: Cell, pool: Pool, progress: Progress
) -> dict[str, Any]:
    """Accuracy on the known task of networks trained where another task agrees with it."""
    seed = cell["seed"]
    rng = np.random.default_rng([settings.seed, seed])
    images, known, positives = _known_task(settings, seed - settings.seed, rng)
    found = find(Space(images, _search(settings, seed)), pool, Progress())
    trials = [found.trials[i] for i in found.candidates]
    chosen = first_usable([t.labeling for t in trials], known, settings.least_images)
    if chosen is None:
        return {"positive_classes": positives, "candidate": None}
    discovered = against(known, trials[chosen].labeling)
    n, n_pos = settings.n_random_splits, int(known.sum())
    random = random_labelings(settings.n_random, len(known), n_pos, rng)
    scorer = TrainedScorer(images, settings.protocol, seed, pool)
    scores = concatenated(list(scorer.score(np.vstack([discovered, random]))))
    agreed = [discovered == known]
    by_chance = [
        against(known, labeling) == known
        for labeling in random_labelings(n, len(known), n_pos, rng)
    ]
    trains = {
        "adversarial": agreed,
        "like adversarial": [split_like(agreed[0], known, rng) for _ in range(n)],
        "control": by_chance,
        "like control": [split_like(train, known, rng) for train in by_chance],
    }
    seeds = rng.integers(2**31, size=(1 + 3 * n, settings.n_models))
    masks_of_all = np.array([mask for masks in trains.values() for mask in masks])
    called = predictions(images, known, masks_of_all, seeds, settings.n_steps, pool)
    splits, start = {}, 0
    for kind, masks in trains.items():
        part = called[start : start + len(masks)]
        splits[kind] = [
            _measured(mask, calls, known, discovered)
            for mask, calls in zip(masks, part, strict=True)
        ]
        start += len(masks)
    return {
        "positive_classes": positives,
        "candidate": chosen,
        "taskness": float(scores.taskness[0]),
        "t_task": t_task(scores.taskness[1:]),
        "search_score": float(trials[chosen].taskness),
        "splits": splits,
        "known": to_hex(known),
        "discovered": to_hex(discovered),
        "indices": images.indices.tolist(),
        "hashes": images.hashes(),
    }


def _known_task(
    settings: AdversarialSplitSettings, repeat: int, rng: np.random.Generator
) -> tuple[ImageSet, np.ndarray, list[str]]:
    """Images, the known labels uint8 [n_images], and the names of the positive classes."""
    asked = settings.images
    seed = asked.seed + repeat
    positives = list(dict.fromkeys(settings.positive_classes))
    if positives:
        source = source_of(asked)
        names = source.classes[source.target(asked.target)]
        others = [name for name in names if name not in positives]
        if len(others) < len(positives):
            raise SettingError(
                "`positive_classes` must leave as many other classes, got "
                f"{len(positives)} of {len(names)}."
            )
        negatives = [str(name) for name in rng.permutation(others)[: len(positives)]]
        assert asked.per_class is not None
        images = of_classes(asked, [*positives, *negatives], asked.per_class, seed)
    else:
        images = drawn(asked, seed=seed)
    target = images.target(asked.target)
    labels, names = images.targets[target], images.classes[target]
    if not positives:
        classes = rng.permutation(np.unique(labels))
        positives = sorted(names[number] for number in classes[: len(classes) // 2])
    known = np.isin(labels, [names.index(name) for name in positives]).astype(np.uint8)
    return images, known, positives


def against(known: np.ndarray, labeling: np.ndarray) -> np.ndarray:
    """A labeling at 1:1, flipped if it differs from the known one on more than half of images."""
    labeling = labeling.astype(np.uint8)
    return 1 - labeling if 2 * (labeling != known).sum() > len(known) else labeling


def first_usable(labelings: list[np.ndarray], known: np.ndarray, least: int) -> int | None:
    """The position of the first labeling, if any, that leaves two large enough parts.

    Each of them, where it agrees with the known labeling and where not, has `least` images and both
    classes.
    """
    for i, labeling in enumerate(labelings):
        agree = against(known, labeling) == known
        parts = (known[agree], known[~agree])
        if all(len(part) >= least and 0 < part.sum() < len(part) for part in parts):
            return i
    return None


def split_like(train: np.ndarray, known: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another split, drawn at random, with as many train images of each known class.

    Args:
        train: Which images train, bool [n_images].
        known: Their labels [n_images].
        rng: Draws.
    """
    drawn_train = np.zeros(len(train), dtype=bool)
    for label in (0, 1):
        of_label = np.flatnonzero(known == label)
        drawn_train[rng.permutation(of_label)[: int(train[of_label].sum())]] = True
    return drawn_train


def predictions(
    images: ImageSet,
    known: np.ndarray,
    trains: np.ndarray,
    seeds: np.ndarray,
    n_steps: int,
    pool: Pool,
) -> np.ndarray:
    """What networks call the images after training on the known labels of some of them.

    Args:
        images: All images; their pixels alone decide the standardisation.
        known: Labels uint8 [n_images].
        trains: Which images train, bool [n_splits, n_images].
        seeds: Of the initialisations [n_splits, n_models].
        n_steps: Steps of Adam; nothing else ends the training.
        pool: Its first device trains.

    Returns:
        uint8 [n_splits, n_models, n_images].
    """
    import torch

    from taskdisc.taskness.convolutions import lay_out
    from taskdisc.taskness.lenet import initial_parameters, standardised
    from taskdisc.taskness.population import fit, positive_probability

    device = pool.devices[0]
    patches = lay_out(standardised(np.asarray(images.images)).to(device))
    n_splits, n_models = seeds.shape
    shares = np.repeat(trains / trains.sum(axis=1, keepdims=True), n_models, axis=0)
    labels = torch.from_numpy(known).to(device)
    population = population_size(device, len(images))
    called = []
    for start in range(0, n_splits * n_models, population):
        weights = torch.from_numpy(shares[start : start + population]).float().to(device)
        parameters = initial_parameters(seeds.ravel()[start : start + population]).to(device)
        targets = labels.expand(len(weights), -1)
        _, trained = fit(patches, targets, weights, parameters, n_steps=n_steps)
        called.append((positive_probability(patches, trained) > 0.5).cpu().numpy())
    return np.concatenate(called).reshape(n_splits, n_models, -1).astype(np.uint8)


def _measured(
    train: np.ndarray, called: np.ndarray, known: np.ndarray, discovered: np.ndarray
) -> dict[str, Any]:
    """Sizes of a split and accuracies of its networks' calls uint8 [n_models, n_images]."""
    right = called == known
    return {
        "train": to_hex(train),
        "n_train": int(train.sum()),
        "n_test": int((~train).sum()),
        "train_accuracy": right[:, train].mean(axis=1).tolist(),
        "accuracy": right[:, ~train].mean(axis=1).tolist(),
        "discovered_accuracy": (called == discovered)[:, ~train].mean(axis=1).tolist(),
    }


def answer(settings: AdversarialSplitSettings, records: list[Record]) -> Answer:
    """Accuracy on test images by repeat and split, and the split of every repeat as arrays.

    Without repeats in which no labeling that was found can be turned against the known one.

    Raises:
        SettingError: that was so in all of them.
    """
    usable = [record for record in records if record["candidate"] is not None]
    if not usable:
        raise SettingError(
            f"`least_images` must leave a labeling to turn against the known one, got "
            f"{settings.least_images}: none that was found agrees with it, and differs from it, on "
            "as many; lower it, or set `search.tasks` higher."
        )
    table = [_row(record, kind) for record in usable for kind in SPLITS]
    arrays = {f"split-{record['seed']}": _arrays(record) for record in usable}
    reading = _reading(table, len(records) - len(usable))
    return Answer(table, reading, {"adversarial-split": _draw(table)}, arrays)


def _row(record: Record, kind: str) -> dict[str, Any]:
    splits = record["splits"][kind]
    values = {
        name: np.array([split[name] for split in splits])
        for name in ("n_train", "n_test", "accuracy", "train_accuracy", "discovered_accuracy")
    }
    return {
        "seed": record["seed"],
        "split": kind,
        "n_train": float(values["n_train"].mean()),
        "n_test": float(values["n_test"].mean()),
        "accuracy": float(values["accuracy"].mean()),
        "accuracy_sd": float(values["accuracy"].std(ddof=min(1, values["accuracy"].size - 1))),
        "train_accuracy": float(values["train_accuracy"].mean()),
        "discovered_accuracy": float(values["discovered_accuracy"].mean()),
        "n_splits": len(splits),
        "n_networks": int(values["accuracy"].size),
        "taskness": record["taskness"],
        "t_task": record["t_task"],
        "search_score": record["search_score"],
        "positive_classes": ", ".join(record["positive_classes"]),
    }


def _arrays(record: Record) -> dict[str, np.ndarray]:
    """The adversarial split of a repeat, named as in the `tasks.npz` of a search.

    `indices` and `hashes` of all images, both labels of each, and the positions in the source of
    those that train and test.
    """
    indices = np.array(record["indices"])
    train = from_hex(record["splits"]["adversarial"][0]["train"], len(indices)).astype(bool)
    return {
        "indices": indices,
        "hashes": np.array(record["hashes"]),
        "known": from_hex(record["known"], len(indices)),
        "discovered": from_hex(record["discovered"], len(indices)),
        "train_indices": indices[train],
        "test_indices": indices[~train],
    }


def _of(table: list[dict[str, Any]], kind: str, name: str = "accuracy") -> np.ndarray:
    """A column of one kind of split, a value per repeat."""
    return np.array([row[name] for row in table if row["split"] == kind])


def _reading(table: list[dict[str, Any]], n_left_out: int) -> str:
    adversarial, like, control, like_control = (_of(table, kind) for kind in SPLITS)
    verdict = {
        1: "so the discovered labelings did not draw networks away, but helped",
        0: "which a 95 % interval does not tell from none",
        -1: "so the discovered labelings drew networks away from the known ones",
    }[sign_of(adversarial - like)]
    taskness, thresholds = (_of(table, "adversarial", name) for name in ("taskness", "t_task"))
    n_tasks = int((taskness > thresholds).sum())
    n = len(adversarial)
    left_out = (
        f" {n_left_out} more repeats found no labeling that agrees and differs on enough images."
        if n_left_out
        else ""
    )
    return (
        f"Trained where a discovered labeling and the known task agree "
        f"({_of(table, 'adversarial', 'n_train').mean():.0f} images; train accuracy "
        f"{plus_minus(_of(table, 'adversarial', 'train_accuracy'), 2)}), networks are right on "
        f"{plus_minus(adversarial, 2)} of the "
        f"{_of(table, 'adversarial', 'n_test').mean():.0f} images where the two differ (on all "
        "others they say what the discovered labeling says), and on "
        f"{plus_minus(like, 2)} of the test images of random splits of the same sizes; chance is "
        f"0.50. Paired, the difference is {plus_minus(adversarial - like, 2)}, {verdict}. Splits "
        f"by random labelings ({_of(table, 'control', 'n_train').mean():.0f} train images) give "
        f"{plus_minus(control, 2)}, which is {plus_minus(control - like_control, 2)} from random "
        f"splits of their sizes. {n_tasks} of {n} discovered labelings are above T_task "
        f"(taskness {plus_minus(taskness)} against {plus_minus(thresholds)}). Means ± s.e. over "
        f"{n} repeats with other images and classes.{left_out}"
    )


def _draw(table: list[dict[str, Any]]) -> Plot:
    figure, (axes,) = figure_of()
    values = np.array([_of(table, kind) for kind in SPLITS]).T  # [repeat, kind]
    for repeat in values:
        axes.plot(
            range(len(SPLITS)), repeat, color="0.6", linestyle="-", linewidth=0.8, markersize=4,
            marker="o",
        )  # fmt: skip
    mean, sem = mean_and_sem(values)
    axes.errorbar(
        np.arange(len(SPLITS)) + 0.08, mean, yerr=sem, linestyle="", marker="D", markersize=7,
        capsize=4, color="#0b3c6f", label="mean ± s.e.",
    )  # fmt: skip
    axes.axhline(0.5, color="0.3", linestyle="--", linewidth=1, label="chance")
    axes.set_xticks(range(len(SPLITS)), [*SPLITS.values()])
    axes.set_xlim(-0.4, len(SPLITS) - 0.6)
    axes.set_ylim(0, 1)
    axes.set(xlabel="what splits the images", ylabel="accuracy on the test images, known labels")
    axes.legend(loc="lower right")
    return Plot(
        figure,
        "Accuracy on the known task of networks that were trained on the images where the "
        "discovered labeling, or a random one, agrees with it, and tested on the others, each "
        "beside random splits of the same sizes and classes. Grey: each repeat (other "
        f"images and classes), mean over its networks. Bars: ± s.e. over {len(values)} repeats. "
        "Dashed: chance.",
    )


STUDY = Study(
    "what if a discovered task is turned against a known one?",
    AdversarialSplitSettings,
    cells,
    measure,
    answer,
    check=lambda settings: _known_task(settings, 0, np.random.default_rng(0)),
)
