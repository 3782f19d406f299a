"""A few digits with three tasks, and quick trainings on them."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer

from taskdisc.config import settings_from
from taskdisc.images import ImageSet, load_images, select
from taskdisc.mtl.config import RowSettings, TaskSettings
from taskdisc.mtl.data import Split, split_of, tasks_of
from taskdisc.mtl.module import MultiTaskModule
from taskdisc.mtl.tasks import Task
from taskdisc.mtl.train import Trained, module_of, quietly, train

SPLIT = split_of(120, 0.2, 0.2, 0)
"""72 images that train, 24 that choose the epoch, 24 that measure."""

TASKS: dict[str, dict[str, Any]] = {
    "digit": {"kind": "classification", "of": "digit"},
    "parity": {"kind": "binary", "of": "digit", "positives": list("13579")},
    "bright": {"kind": "regression", "of": "bright"},
}


@cache
def images() -> ImageSet:
    """120 digits of 16 x 16 pixels, of each class as many."""
    return select(load_images("digits", cache=False), n_classes=10, per_class=12, seed=0).resized(
        16
    )


def tasks(**changes: dict[str, Any]) -> list[Task]:
    """The three tasks, some with other settings."""
    settings = {name: {**task, **changes.get(name, {})} for name, task in TASKS.items()}
    read = {name: settings_from(TaskSettings, task) for name, task in settings.items()}
    return tasks_of(images(), read, SPLIT, 0)


def row(training: dict[str, Any] | None = None, **methods: Any) -> RowSettings:
    """A row of one epoch of two batches, but for what is given."""
    return settings_from(
        RowSettings, {"training": {"epochs": 1, "batch": 36, **(training or {})}, **methods}
    )


def module(
    settings: RowSettings,
    of: Sequence[Task] | None = None,
    split: Split = SPLIT,
    main: int | None = 0,
    seed: int = 0,
) -> MultiTaskModule:
    """The module of a row."""
    return module_of(
        images().images, tasks() if of is None else of, split, settings, main=main, seed=seed
    )


def fit(made: MultiTaskModule, **settings: Any) -> MultiTaskModule:
    """Train a module by Lightning alone, with neither checkpoints nor logs."""
    with quietly():
        Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=made.training_settings.epochs,
            reload_dataloaders_every_n_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **{"precision": made.training_settings.precision} | settings,
        ).fit(made)
    return made


def run(
    folder: Path, settings: RowSettings, of: Sequence[Task] | None = None, **how: Any
) -> Trained:
    """Train a row in a folder, with the first task as the main one."""
    chosen = tasks() if of is None else of
    return train(images().images, chosen, SPLIT, settings, folder=folder, **{"main": 0} | how)


def moved(made: MultiTaskModule, act: Callable[[], object]) -> dict[str, bool]:
    """Which trained parameters of the network an act changes."""
    before = {n: p.detach().clone() for n, p in made.network.named_parameters() if p.requires_grad}
    act()
    after = dict(made.network.named_parameters())
    return {name: not bool((after[name] == value).all()) for name, value in before.items()}


def finite(record: dict[str, Any]) -> bool:
    """Whether the losses and metrics of an epoch's record are numbers."""
    validated = [value for found in record["validation"] for value in found.values()]
    values = [record["score"], *record["losses"], *validated]
    return all(value is not None and np.isfinite(value) for value in values)
