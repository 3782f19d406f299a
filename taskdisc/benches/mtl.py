"""What weightings cost per step of training, in time and memory, against plain training."""

import math
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import combinations
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, field_validator

from taskdisc.config import Settings
from taskdisc.errors import SettingError, TaskdiscError, did_you_mean
from taskdisc.files import csv_text
from taskdisc.images import ImageSet, load_images
from taskdisc.mtl.backbones.make import checked as check_backbone
from taskdisc.mtl.config import Method, RowSettings, TrainingSettings
from taskdisc.mtl.data import Split
from taskdisc.mtl.module import MultiTaskModule
from taskdisc.mtl.tasks import Task
from taskdisc.mtl.train import module_of
from taskdisc.mtl.turns import peak_bytes, take_turns
from taskdisc.mtl.weightings import WEIGHTINGS
from taskdisc.pool import Pool
from taskdisc.progress import Progress

PLAIN = "equal"
"""The weighting that is plain training."""

N_STEPS = 2
"""Steps of a turn; the first is not measured."""

MOST_TASKS = math.comb(10, 5) // 2
"""Halves of the ten digits of which no two are one task and its opposite."""

ROUTES = ("jacobian", "gramian")
"""The ways to the Gramian that are compared, the second with the first."""

ROUTES_BY = ("lenet", "imtl-g")
"""By which backbone and weighting: one without batch statistics, which the engine refuses, and one
that needs the Gramian alone and does little with it."""


class BenchSettings(Settings):
    """What is measured, on digits of 32 x 32 pixels with halves of the ten classes as tasks."""

    tasks: tuple[Annotated[int, Field(ge=2, le=MOST_TASKS)], ...] = Field((2, 8, 32), min_length=1)
    weightings: tuple[str, ...] = Field(tuple(WEIGHTINGS), min_length=1)
    backbone: Method  # shared by all tasks, each of which has a linear head
    batch: int = Field(32, ge=2, le=512)  # images
    rounds: int = Field(4, ge=1)  # of all sides in turn

    @field_validator("weightings")
    @classmethod
    def _known(cls, weightings: tuple[str, ...]) -> tuple[str, ...]:
        for name in weightings:
            if name not in WEIGHTINGS:
                raise SettingError(
                    f"`weightings` must be known ones, got {name!r}; "
                    f"{did_you_mean(name, WEIGHTINGS)}"
                )
        return weightings

    @field_validator("backbone")
    @classmethod
    def _can_be_made(cls, backbone: Method) -> Method:
        check_backbone(backbone.name, backbone.settings)
        return backbone


@dataclass(frozen=True)
class Measured:
    """What was measured of a step.

    Attributes:
        seconds: Its time, the median of the rounds.
        ratio: Of its time to that of the other side in the same round, the median of the rounds.
        lowest: The lowest of these ratios.
        highest: The highest of them.
        extra_bytes: The peak of tensors in a step, above that of plain training.
    """

    seconds: float
    ratio: float
    lowest: float
    highest: float
    extra_bytes: int


@dataclass(frozen=True)
class Cost:
    """What a step of training costs.

    Attributes:
        n_tasks: Number of tasks.
        backbone: Its name.
        weighting: Its name.
        needs: What the trainer computes for the weighting.
        gradients: How it does so, as in `TrainingSettings`.
        against: The other side: plain training, or the Jacobian where routes are compared.
        measured: None where the weighting refuses.
        refused: Why it does; empty where it does not.
    """

    n_tasks: int
    backbone: str
    weighting: str
    needs: str
    gradients: str
    against: str
    measured: Measured | None = None
    refused: str = ""

    def as_record(self) -> dict[str, Any]:
        """Flat, with what was measured by name, or None."""
        record = asdict(self)
        measured = record.pop("measured") or {}
        refused = record.pop("refused")
        return (
            record | {f.name: measured.get(f.name) for f in fields(Measured)} | {"refused": refused}
        )

    def as_row(self) -> dict[str, Any]:
        """As a row of a printed table."""
        if self.against == PLAIN:
            row: dict[str, Any] = {"weighting": self.weighting, "needs": self.needs}
        else:
            row = {"tasks": self.n_tasks, "gradients": self.gradients}
        m = self.measured
        ratio = None if m is None else f"{m.ratio:.2f} ({m.lowest:.2f}–{m.highest:.2f})"
        return row | {
            "ms per step": None if m is None else f"{1000 * m.seconds:.1f}",
            f"ratio to {self.against}": ratio,
            f"peak MiB above {PLAIN}": None if m is None else f"{m.extra_bytes / 2**20:.2f}",
        }


@dataclass(frozen=True)
class Table:
    """Costs that belong together, with a line that says of what they are."""

    title: str
    costs: list[Cost]


def bench(settings: BenchSettings, device: str, progress: Progress) -> Iterator[Table]:
    """The costs of the weightings for each number of tasks, then those of both routes.

    The step is that of `MultiTaskModule` under a Lightning trainer, see `take_turns`, on one
    thread. Each weighting takes turns with one plain training, which goes on throughout. Memory is
    measured apart. Cosines and conflicts, which `train` logs of some batches, are left out.

    Raises:
        SettingError: an unknown device, or a backbone that cannot be made.
    """
    images = load_images("digits", cache=False)
    pool = Pool(1, device)
    yield from pool.map(partial(_weightings, settings, images, progress), settings.tasks)
    yield from pool.map(partial(_routes, settings, images, progress), [settings.tasks])


def machine(device: str) -> str:
    """Where times are taken, one line."""
    where = Pool(1, device).devices[0]
    gpu = "" if where == "cpu" else f" and one {torch.cuda.get_device_name(where)}"
    return (
        f"one thread of {os.cpu_count()} cores ({platform.machine()}){gpu}, "
        f"torch {torch.__version__}"
    )


def as_csv(costs: Sequence[Cost]) -> str:
    """A line per cost, below one with the names of what it holds."""
    return csv_text([cost.as_record() for cost in costs])


def _weightings(
    settings: BenchSettings, images: ImageSet, progress: Progress, n_tasks: int, device: str
) -> Table:
    """Every weighting beside plain training."""
    make = partial(_module, images, settings.batch, n_tasks, settings.backbone)
    plain = make(PLAIN)
    # On a GPU a turn comes first, as libraries keep memory from their first use on.
    take_turns([plain], 1, device)
    peak = peak_bytes(make(PLAIN), device)
    costs = []
    progress.start(f"{n_tasks} tasks", len(settings.weightings), "weightings")
    for name in settings.weightings:
        needs = WEIGHTINGS[name].needs.name.lower().replace("_", " ")
        what = partial(Cost, n_tasks, settings.backbone.name, name, needs, "auto", PLAIN)
        try:
            other, own = take_turns([plain, make(name)], settings.rounds, device)
            extra = peak_bytes(make(name), device) - peak
        except TaskdiscError as error:  # such as too few tasks for it
            costs.append(what(refused=str(error)))
        else:
            costs.append(what(_compared(own, other, extra)))
        progress.advance(1)
    progress.finish()
    n_shared = sum(p.numel() for p in plain.shared.parameters)
    title = (
        f"{n_tasks} tasks, {n_shared:,} shared parameters; plain training holds at most "
        f"{peak / 2**20:.1f} MiB of tensors in a step"
    )
    return Table(title, costs)


def _routes(
    settings: BenchSettings,
    images: ImageSet,
    progress: Progress,
    counts: Sequence[int],
    device: str,
) -> Table:
    """The Gramian without the Jacobian beside that from it."""
    backbone, weighting = ROUTES_BY
    costs = []
    progress.start("routes", len(counts), "numbers of tasks")
    for n_tasks in counts:
        make = partial(_module, images, settings.batch, n_tasks, Method(name=backbone))
        times = take_turns([make(weighting, route) for route in ROUTES], settings.rounds, device)
        peak = peak_bytes(make(PLAIN), device)
        for route, own in zip(ROUTES, times, strict=True):
            extra = peak_bytes(make(weighting, route), device) - peak
            measured = _compared(own, times[0], extra)
            needs = WEIGHTINGS[weighting].needs.name.lower()
            costs.append(Cost(n_tasks, backbone, weighting, needs, route, ROUTES[0], measured))
        progress.advance(1)
    progress.finish()
    return Table(f"both routes to the Gramian, by {weighting} on {backbone}", costs)


def _compared(own: Sequence[float], other: Sequence[float], extra_bytes: int) -> Measured:
    """Seconds of the rounds, beside those of the other side."""
    ratios = [a / b for a, b in zip(own, other, strict=True)]
    return Measured(
        statistics.median(own), statistics.median(ratios), min(ratios), max(ratios), extra_bytes
    )


def _module(
    images: ImageSet,
    batch: int,
    n_tasks: int,
    backbone: Method,
    weighting: str,
    gradients: str = "auto",
) -> MultiTaskModule:
    """One way of training, made ready for epochs of `N_STEPS`; the first task is the main one."""
    n_train = N_STEPS * batch
    row = RowSettings(
        backbone=backbone,
        weighting=Method(name=weighting),
        training=TrainingSettings.model_validate(
            {"epochs": 1, "batch": batch, "probes": 0, "gradients": gradients}
        ),
    )
    split = Split(np.arange(n_train), np.arange(n_train, n_train + batch), np.arange(0))
    return module_of(images.images, _tasks(images, n_tasks), split, row, main=0)


def _tasks(images: ImageSet, n_tasks: int) -> list[Task]:
    """Whether a digit is of one half of the ten; no two tasks are alike."""
    halves = [half for half in combinations(range(10), 5) if 0 in half]
    drawn = np.random.default_rng(0).permutation(halves)[:n_tasks]
    digits = images.targets["digit"]
    return [
        Task(f"half {number}", "binary", np.isin(digits, half).astype(np.float32)[:, None], 1)
        for number, half in enumerate(drawn)
    ]
