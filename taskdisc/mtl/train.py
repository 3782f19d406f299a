"""Training one network on several tasks, from its settings to its result."""

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taskdisc.mtl.architectures import make_network
from taskdisc.mtl.architectures.base import MultiTaskNetwork, reach
from taskdisc.mtl.backbones import make_backbone
from taskdisc.mtl.config import RowSettings
from taskdisc.mtl.data import Split
from taskdisc.mtl.kinds import KINDS
from taskdisc.mtl.module import MultiTaskModule
from taskdisc.mtl.schedules import make_schedule
from taskdisc.mtl.tasks import Task
from taskdisc.mtl.weightings.active import ActiveWeighting

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

LAST, BEST = "last.ckpt", "best.ckpt"


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes:
        test: The metric of each task on the test images, at the chosen epoch, by name.
        epoch: The epoch, from 1, that was best on the validation images.
        history: One record per epoch; see `MultiTaskModule`.
        shown: What the network has learned about its tasks.
        n_parameters: How many are trained.
        seconds: Wall time of training and validation.
    """

    test: dict[str, float]
    epoch: int
    history: list[dict[str, Any]]
    shown: list[dict[str, Any]]
    n_parameters: int
    seconds: float


def train(
    images: np.ndarray,
    tasks: Sequence[Task],
    split: Split,
    row: RowSettings,
    *,
    main: int | None = None,
    seed: int = 0,
    folder: Path,
    device: str = "cpu",
    progress: bool = False,
) -> Trained:
    """Train a network on some tasks, choose the epoch on validation, and test that one alone.

    A training that was interrupted goes on from the last epoch in `folder`, to the same result.

    Args:
        images: uint8 [n_images, H, W, 3].
        tasks: With their labels.
        split: Of the images.
        row: Architecture, backbone, weighting, schedule and how it is trained.
        main: Number of the main task, by whose validation metric the epoch is chosen; without one
            it is chosen by the mean over the tasks.
        seed: From which weights, order and draws follow.
        folder: Where checkpoints and logs (CSV, TensorBoard) go; made if it is not there.
        device: `cpu`, `cuda:<index>`, or `auto` for all that Lightning finds.
        progress: Whether to show a bar.

    Raises:
        SettingError: a setting breaks its rule, or `folder` holds a checkpoint of another training.
        RunFailedError: a loss is no number any more.
    """
    from lightning.pytorch.callbacks import ModelCheckpoint

    module = module_of(images, tasks, split, row, main=main, seed=seed)
    saving = ModelCheckpoint(
        folder,
        filename=Path(BEST).stem,
        monitor="score",
        mode="max",
        save_last=True,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )
    trainer = _trainer(row, folder, device, saving, progress)
    start = time.perf_counter()
    last = folder / LAST
    with _quietly():
        trainer.fit(module, ckpt_path=last if last.exists() else None, weights_only=True)
        seconds = time.perf_counter() - start
        if trainer.interrupted:
            raise KeyboardInterrupt
        history = module.history  # the best epoch's checkpoint has but its own
        trainer.test(module, ckpt_path=folder / BEST, weights_only=True, verbose=False)
    scores = [record["score"] for record in history]
    return Trained(
        module.measured,
        1 + max(range(len(scores)), key=lambda i: -1e30 if scores[i] is None else scores[i]),
        history,
        [asdict(shown) for shown in module.network.shown()],
        sum(p.numel() for p in module.network.parameters() if p.requires_grad),
        seconds,
    )


def module_of(
    images: np.ndarray,
    tasks: Sequence[Task],
    split: Split,
    row: RowSettings,
    *,
    main: int | None = None,
    seed: int = 0,
) -> MultiTaskModule:
    """The module that `train` trains; arguments and errors as there."""
    shape = (3, *images.shape[1:3])
    backbone = row.backbone
    network = make_network(
        row.architecture.name,
        lambda: make_backbone(backbone.name, shape, **backbone.settings),
        [task.n_outputs for task in tasks],
        seed,
        **row.architecture.settings,
    )
    weighting = dict(row.weighting.settings)
    if row.weighting.name == "uncertainty":
        weighting.setdefault("kinds", [KINDS[task.kind].likelihood for task in tasks])
    return MultiTaskModule(
        network,
        images,
        tasks,
        split,
        _moments(images, split.train),
        ActiveWeighting(row.weighting.name, len(tasks), main, seed, weighting),
        make_schedule(
            row.schedule.name,
            len(tasks),
            seed,
            main=main,
            head_depths=_head_depths(network, shape),
            n_labelled=[int(task.known[split.train].sum()) for task in tasks],
            **row.schedule.settings,
        ),
        row.training,
        main,
        seed,
        {
            "tasks": [task.name for task in tasks],
            "n_train": len(split.train),
            "seed": seed,
            "main": main,
            **row.model_dump(mode="json", exclude={"tasks"}),
        },
    )


def _head_depths(network: MultiTaskNetwork, shape: tuple[int, ...]) -> list[int]:
    """Layers of weights that each task has to itself, at least 1 as where only biases are."""
    own = [0] * len(network.heads)
    parameters = dict(network.named_parameters())
    for name, tasks in reach(network, torch.zeros(2, *shape)).items():
        if len(tasks) == 1 and parameters[name].ndim > 1:
            own[tasks[0]] += 1
    return [max(depth, 1) for depth in own]


def _moments(images: np.ndarray, train: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and s.d. of each channel over the training images, of pixels in [0, 1]."""
    total, squares, n = np.zeros(3), np.zeros(3), 0
    for part in np.array_split(train, max(1, len(train) // 1000)):
        pixels = images[part] / 255.0
        total += pixels.sum(axis=(0, 1, 2))
        squares += (pixels**2).sum(axis=(0, 1, 2))
        n += pixels[..., 0].size
    mean = total / n
    deviation = np.sqrt(np.maximum(squares / n - mean**2, 0))
    return mean.tolist(), np.where(deviation > 1e-5, deviation, 1).tolist()


def _trainer(row: RowSettings, folder: Path, device: str, saving: Any, progress: bool) -> "Trainer":
    from lightning.pytorch import Trainer
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    kind, _, index = device.partition(":")
    with _quietly():
        return Trainer(
            default_root_dir=folder,
            accelerator={"cuda": "gpu"}.get(kind, kind),
            devices=[int(index)] if index else ("auto" if kind != "cpu" else 1),
            precision=row.training.precision,
            max_epochs=row.training.epochs,
            logger=[
                CSVLogger(folder.parent, name=folder.name, version=""),
                TensorBoardLogger(folder.parent, name=folder.name, version=""),
            ],
            callbacks=[saving],
            enable_progress_bar=progress,
            enable_model_summary=False,
            log_every_n_steps=10**9,  # records are per epoch
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,  # for each has an order of its own
        )


class _quietly:
    """Within it, Lightning's advice on workers and its list of devices are not shown."""

    def __enter__(self) -> None:
        self._filters = warnings.catch_warnings()
        self._filters.__enter__()
        warnings.filterwarnings("ignore", module="lightning")
        self._loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
        self._levels = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *error: object) -> None:
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.setLevel(level)
        self._filters.__exit__(None, None, None)
