"""Training one network on several tasks, from its settings to its result."""

import io
import json
import logging
import signal
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from taskdisc.errors import RunFolderError, SettingError
from taskdisc.files import csv_text, write_atomic
from taskdisc.mtl.architectures import make_network
from taskdisc.mtl.architectures.base import MultiTaskNetwork, reach
from taskdisc.mtl.backbones import make_backbone
from taskdisc.mtl.backbones.base import Backbone, frozen_features
from taskdisc.mtl.config import RowSettings, TrainingSettings
from taskdisc.mtl.data import Split
from taskdisc.mtl.kinds import KINDS
from taskdisc.mtl.module import MultiTaskModule, flat_record
from taskdisc.mtl.schedules import make_schedule
from taskdisc.mtl.tasks import Task, as_facts, blind
from taskdisc.mtl.weightings.active import ActiveWeighting
from taskdisc.tensors import load_tensors

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

LAST, BEST, EPOCHS = "last.ckpt", "best.ckpt", "metrics.csv"
"""Files of a training: the newest epoch, the chosen one, and the records of all of them."""

SEVERAL = "ddp_spawn_find_unused_parameters_true"
"""Lightning's strategy for several devices. Others would run the program again, which as a command
would then start its run again, or fork, which CUDA does not survive."""

MOST_FEATURES = 2**32
"""Bytes that the features of frozen stages may take; above, they are computed in every epoch."""


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes:
        test: Of each task by name, its loss and all metrics of its kind on the test images, at the
            chosen epoch.
        blind: The same of the constant prediction that fits the training labels best.
        epoch: The chosen epoch, from 1: of equally good ones the first.
        history: One record per epoch; see `MultiTaskModule`.
        shown: What the network has learned about its tasks.
        n_parameters: How many are trained and reached by a task.
        seconds: Wall time of training and validation, since it was started or went on.
        step_seconds: The same per step.
    """

    test: dict[str, dict[str, float]]
    blind: dict[str, dict[str, float]]
    epoch: int
    history: list[dict[str, Any]]
    shown: list[dict[str, Any]]
    n_parameters: int
    seconds: float
    step_seconds: float


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
    devices: int = 1,
    progress: bool = False,
) -> Trained:
    """Train a network on some tasks, choose the epoch on validation, and test that one alone.

    A training that was interrupted goes on from the last epoch in `folder`, to the same result.
    The chosen epoch has the highest score: the main task's validation metric, or without a main
    task the mean over tasks, each as `score_of` gives it. An epoch without a score, as its metric
    is no number, counts below all others. With `training.epoch` at `last` it is the last one.

    Several devices each take `training.batch` images per step, of which gradients are averaged.
    Each is a process of its own, started anew, so a script that asks for them needs
    `if __name__ == "__main__":`.

    Args:
        images: uint8 [n_images, H, W, 3].
        tasks: With their labels.
        split: Of the images.
        row: Architecture, backbone, weighting, schedule and how it is trained.
        main: Number of the main task, by whose validation metric the epoch is chosen; without one
            it is chosen by the mean over the tasks.
        seed: From which weights, order and draws follow.
        folder: Where checkpoints and logs (CSV, TensorBoard) go; made if it is not there.
        device: `cpu`, `cuda`, `cuda:<index>`, or `auto` for what Lightning finds.
        devices: How many of them train this one network, at least 1.
        progress: Whether to show a bar.

    Raises:
        SettingError: a setting breaks its rule, or `folder` holds a checkpoint of another training.
        ImageSetError: labels are missing; see `MultiTaskModule`.
        RunFolderError: a checkpoint in `folder` cannot be read.
        RunFailedError: a loss is no number any more.
    """
    last, best = folder / LAST, folder / BEST
    goes_on = last.exists()
    n_before = 0
    if goes_on:
        before = check_checkpoint(last)["history"]
        n_before = len(before)
        if chosen_epoch(before, row.training) <= n_before:
            check_checkpoint(best)
    features = features_of(images, split, row, device)
    module = module_of(images, tasks, split, row, main=main, seed=seed, features=features)
    trainer = trainer_of(row, folder, device, devices, progress)
    interrupt = signal.getsignal(signal.SIGINT)
    start = time.perf_counter()
    with quietly():
        try:
            trainer.fit(module, ckpt_path=last if goes_on else None, weights_only=True)
            seconds = time.perf_counter() - start
            # Not of the module, which with several devices was trained in other processes.
            history = check_checkpoint(last)["history"]
            n_steps = trainer.global_step * (len(history) - n_before) / len(history)
            tester = trainer if devices == 1 else trainer_of(row, folder, device, 1, progress)
            tester.test(module, ckpt_path=best, weights_only=True, verbose=False)
        except SystemExit:  # Lightning ends the process on Ctrl-C, and turns further ones off
            signal.signal(signal.SIGINT, interrupt)
            raise KeyboardInterrupt from None
    return Trained(
        module.tested,
        {task.name: blind(task, split.train, split.test) for task in tasks},
        chosen_epoch(history, row.training),
        history,
        [asdict(shown) for shown in module.network.shown([task.name for task in tasks])],
        sum(p.numel() for n, p in module.network.named_parameters() if module.reached.get(n)),
        seconds,
        seconds / max(n_steps, 1),
    )


def best_epoch(history: Sequence[Mapping[str, Any]]) -> int:
    """The epoch, from 1, with the highest score, of equals the first."""
    scores = [-np.inf if record["score"] is None else record["score"] for record in history]
    return 1 + int(np.argmax(scores))


def chosen_epoch(history: Sequence[Mapping[str, Any]], training: TrainingSettings) -> int:
    """The epoch, from 1, that is to be tested; the last one may be yet to come."""
    return training.epochs if training.epoch == "last" else best_epoch(history)


def check_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint says of its training: `says`, `history` and the `schedule`'s state.

    Raises:
        RunFolderError: it is torn, or no checkpoint of a training; nothing in it is executed.
    """
    try:
        saved = load_tensors(path, mapped=True)  # they are not needed here
        told = saved["taskdisc"]
        if not isinstance(told["says"], dict) or not isinstance(told["history"], list):
            raise ValueError("it does not say of which training it is")
        if not told["history"] or not isinstance(saved["state_dict"], dict):
            raise ValueError("it holds no epoch of a network")
        return told
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RunFolderError(
            f"{path} must be a checkpoint of a multi-task training, got a file that cannot be read "
            f"as one ({type(error).__name__}); remove the checkpoints in its folder to start "
            "afresh."
        ) from error


class _WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it.

    Lightning writes it into the system's folder of temporary files, which may be on another disk:
    then it is copied over the one before, and whoever is killed in doing so leaves half of it.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(Path(path), content.getvalue())


class _Saving(Checkpoint):
    """After every epoch saves it as the last one, as the best one if it is, and all records.

    What is best follows from the records alone, so a folder may be moved before it goes on.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def setup(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:
        if trainer.world_size > 1:
            quietly().__enter__()  # this process is one of several, and is not quiet yet

    def on_train_epoch_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        assert isinstance(pl_module, MultiTaskModule)
        history = pl_module.history
        # The last one last: without it, the epoch is trained and saved once more.
        if chosen_epoch(history, pl_module.training_settings) == len(history):
            trainer.save_checkpoint(self.folder / BEST)
        trainer.save_checkpoint(self.folder / LAST)
        if trainer.is_global_zero:
            names = [task.name for task in pl_module.tasks]
            write_atomic(self.folder / EPOCHS, csv_text([flat_record(r, names) for r in history]))


def module_of(
    images: np.ndarray,
    tasks: Sequence[Task],
    split: Split,
    row: RowSettings,
    *,
    main: int | None = None,
    seed: int = 0,
    features: np.ndarray | None = None,
) -> MultiTaskModule:
    """The module that `train` trains; arguments and errors as there.

    Frozen stages of the backbone are no part of the architecture: they come before it, once for all
    tasks. With `features`, those of `features_of`, they are not needed.
    """
    shape = (3, *images.shape[1:3])
    first = _backbone(row, shape, seed)
    frozen, rest = first.split()
    network = make_network(
        row.architecture.name,
        lambda: make_backbone(row.backbone.name, shape, **row.backbone.settings).split()[1],
        [task.n_outputs for task in tasks],
        seed,
        kinds=[task.kind for task in tasks],
        **row.architecture.settings,
    )
    weighting = dict(row.weighting.settings)
    if row.weighting.name == "uncertainty":
        weighting.setdefault("kinds", [KINDS[task.kind].likelihood for task in tasks])
    inputs = images if features is None else features
    schedule = make_schedule(
        row.schedule.name,
        len(tasks),
        seed,
        main=main,
        head_depths=_head_depths(network, rest.shapes[0]),
        n_labelled=[int(task.known[split.train].sum()) for task in tasks],
        **row.schedule.settings,
    )
    return MultiTaskModule(
        network,
        inputs,
        tasks,
        split,
        _normalisation(first, images, split.train),
        ActiveWeighting(row.weighting.name, len(tasks), main, seed, weighting),
        schedule,
        row.training,
        main,
        seed,
        {
            "tasks": {task.name: {**as_facts(task), "weight": task.weight} for task in tasks},
            "n_train": len(split.train),
            "seed": seed,
            "main": main,
            **row.model_dump(mode="json", exclude={"tasks"}),
        },
        frozen if features is None and len(frozen.stages) else None,
    )


_features: dict[str, tuple[np.ndarray, np.ndarray]] = {}
"""Of the last images and frozen stages, so that the trainings of a process compute them once."""


def features_of(
    images: np.ndarray, split: Split, row: RowSettings, device: str
) -> np.ndarray | None:
    """What the frozen stages of a backbone give for all images, float32 [n_images, …].

    It never changes in training, and is computed once. None where no stage is frozen, or where it
    would take more than `MOST_FEATURES` bytes.
    """
    mode = row.backbone.settings.get("mode")
    if mode not in ("fixed", "last"):
        return None
    shape = (3, *images.shape[1:3])
    frozen, rest = _backbone(row, shape, 0).split()
    if 4 * len(images) * int(np.prod(rest.shapes[0])) > MOST_FEATURES:
        return None
    normalisation = _normalisation(frozen, images, split.train)
    weights = Path(row.backbone.settings.get("weights", ""))
    changed = weights.stat().st_mtime_ns if weights.is_file() else 0
    key = json.dumps([row.backbone.model_dump(), changed, normalisation], sort_keys=True)
    if key not in _features or _features[key][0] is not images:
        _features.clear()
        _features[key] = images, _in_batches(frozen, images, normalisation, device)
    return _features[key][1]


def backbone_features(
    images: np.ndarray, train: np.ndarray, row: RowSettings, seed: int, device: str
) -> np.ndarray:
    """What the last stage of a backbone gives for all images, float32 [n_images, n_features].

    With the weights that the row names, or else with those that a training of it from this seed
    begins with.

    Args:
        images: uint8 [n_images, H, W, 3].
        train: Positions of the training images, to whose moments all are brought.
        row: Of which the backbone counts.
        seed: Of the initial weights.
        device: As of `train`.

    Raises:
        SettingError: a setting of the backbone breaks its rule, or its weights are of another.
    """
    backbone = _backbone(row, (3, *images.shape[1:3]), seed).eval()
    return _in_batches(backbone, images, _normalisation(backbone, images, train), device)


def _in_batches(
    backbone: Backbone,
    images: np.ndarray,
    normalisation: tuple[list[float], list[float]],
    device: str,
) -> np.ndarray:
    mean, deviation = (torch.tensor(v)[:, None, None] for v in normalisation)
    where = "cuda" if device == "auto" and torch.cuda.is_available() else device
    where = "cpu" if where == "auto" else where
    backbone.to(where)
    # In place: batches that are joined at the end would take twice the memory.
    found = np.empty((len(images), *backbone.shapes[-1]), dtype=np.float32)
    for positions in np.array_split(np.arange(len(images)), -(-len(images) // 256)):
        pixels = torch.from_numpy(images[positions]).permute(0, 3, 1, 2).float() / 255
        normalised = ((pixels - mean) / deviation).to(where)
        found[positions] = frozen_features(backbone, normalised).cpu().numpy()
    return found


def _backbone(row: RowSettings, shape: tuple[int, ...], seed: int) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make_backbone(row.backbone.name, shape, **row.backbone.settings)


def _normalisation(
    backbone: Backbone, images: np.ndarray, train: np.ndarray
) -> tuple[list[float], list[float]]:
    """Means and deviations of the channels: of the given weights, or of the training images."""
    if backbone.normalisation is not None:
        mean, deviation = backbone.normalisation.tolist()
        return mean, deviation
    return _moments(images, train)


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


def trainer_of(
    row: RowSettings, folder: Path, device: str, devices: int, progress: bool
) -> "Trainer":
    from lightning.pytorch.loggers import TensorBoardLogger

    kind, _, index = device.partition(":")
    if index and devices > 1:
        raise SettingError(
            f"`device` must be without a number where `devices` is above 1, got {device!r} and "
            f"{devices}; choose {kind!r}."
        )
    return lightning_on(
        device,
        devices,
        default_root_dir=folder,
        strategy=SEVERAL if devices > 1 else "auto",
        precision=row.training.precision,
        max_epochs=row.training.epochs,
        logger=TensorBoardLogger(folder.parent, name=folder.name, version=""),
        callbacks=[_Saving(folder)],
        plugins=[_WholeFiles()],
        enable_progress_bar=progress,
        log_every_n_steps=10**9,  # records are per epoch
        reload_dataloaders_every_n_epochs=1,  # for each has an order of its own
    )


def lightning_on(device: str, devices: int = 1, **settings: Any) -> "Trainer":
    """Lightning's trainer on a device as `train` names it, without its summary and trial run."""
    from lightning.pytorch import Trainer

    kind, _, index = device.partition(":")
    with quietly():
        return Trainer(
            accelerator={"cuda": "gpu"}.get(kind, kind),
            devices=[int(index)] if index else devices,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **settings,
        )


class quietly:
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
