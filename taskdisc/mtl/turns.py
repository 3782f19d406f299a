"""Time and memory per step of training, for modules that take turns."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback

from taskdisc.mtl.memory import Meter, memory_meter
from taskdisc.mtl.module import MultiTaskModule
from taskdisc.mtl.train import lightning_on, quietly


def take_turns(modules: Sequence[MultiTaskModule], rounds: int, device: str) -> list[list[float]]:
    """Seconds per step of each module in each round, [n_modules][rounds].

    A turn is an epoch, of two steps at least; the first makes the optimiser's states and does not
    count, of the others it is the median. In each round every module has a turn, so that a drift
    of the machine meets all of them.
    """
    seconds: list[list[float]] = [[] for _ in modules]
    for _ in range(rounds):
        for module, found in zip(modules, seconds, strict=True):
            watch = _Watch(device)
            _epoch(module, device, watch)
            found.append(statistics.median(watch.seconds[1:]))
    return seconds


def peak_bytes(module: MultiTaskModule, device: str) -> int:
    """Most bytes of tensors alive at once in a step of an epoch, its first left out.

    Parameters count, and so does what a weighting remembers, if the module was not trained before.
    """
    with memory_meter(device, module) as meter:
        watch = _Peaks(meter)
        _epoch(module, device, watch)
    return max(watch.peaks[1:])


def _epoch(module: MultiTaskModule, device: str, watch: Callback) -> None:
    """One epoch as in `train`, but for checkpoints and logs."""
    trainer = lightning_on(
        device,
        precision=module.training_settings.precision,
        max_epochs=1,
        logger=False,
        callbacks=[watch],
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    with quietly():
        try:
            trainer.fit(module)
        except SystemExit:  # Lightning ends the process on Ctrl-C
            raise KeyboardInterrupt from None


class _Watch(Callback):
    """Wall time of each step, from when Lightning has the batch to when the step is done."""

    def __init__(self, device: str) -> None:
        self.seconds: list[float] = []
        self._on_gpu = device.startswith("cuda")

    def on_train_batch_start(self, *args: Any) -> None:
        self._start = self._now()

    def on_train_batch_end(self, *args: Any) -> None:
        self.seconds.append(self._now() - self._start)

    def _now(self) -> float:
        if self._on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()


class _Peaks(Callback):
    """The peak of memory in each step."""

    def __init__(self, meter: Meter) -> None:
        self.peaks: list[int] = []
        self._meter = meter

    def on_train_batch_start(self, *args: Any) -> None:
        self._meter.restart()

    def on_train_batch_end(self, *args: Any) -> None:
        self.peaks.append(self._meter.peak)
