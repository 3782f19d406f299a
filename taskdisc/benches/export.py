"""What the way of tasks from a run to a training takes: time, and memory beside the images."""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning.pytorch  # noqa: F401  (imported before anything is measured)
import numpy as np
import torchmetrics  # noqa: F401
from pydantic import Field
from torch.utils.data import DataLoader

from taskdisc.config import ImagesSettings, SearchSettings, Settings
from taskdisc.discovery.export import export_tasks
from taskdisc.discovery.folder import RESULT, TASKS, new_folder
from taskdisc.discovery.formats import FORMATS
from taskdisc.discovery.result import SearchResult
from taskdisc.discovery.tasks import load_tasks
from taskdisc.discovery.trials import Trial
from taskdisc.files import write_json, write_npz
from taskdisc.images import ImageSet, load_images
from taskdisc.labelings import random_labelings
from taskdisc.mtl.auxiliaries import auxiliary_tasks, joined
from taskdisc.mtl.config import RowSettings
from taskdisc.mtl.data import split_of
from taskdisc.mtl.dataset import TaskDataset
from taskdisc.mtl.train import lightning_on, module_of, quietly
from taskdisc.pool import Pool
from taskdisc.processes import in_own_process, resident_bytes
from taskdisc.taskness.confirm import Confirmation
from taskdisc.taskness.lenet import SIDE

with suppress(ImportError):
    import pyarrow.parquet  # noqa: F401

N_STEPS = 3
"""Steps of the epoch that is trained, and batches that a loader gives."""


class ExportBenchSettings(Settings):
    """How many images of random pixels, and how many random labelings at 1:1 as tasks of a run."""

    images: int = Field(50_000, ge=100, multiple_of=2)
    tasks: int = Field(64, ge=1)
    batch: int = Field(64, ge=1)  # images per step


def bench_export(settings: ExportBenchSettings) -> Iterator[dict[str, Any]]:
    """What each stage takes, in the order of the way, each in a process of its own.

    Exporting a run, in every format; reading the file and placing its tasks on the images; batches
    of `TaskDataset`; and an epoch of `N_STEPS` steps and all its validation, of a LeNet with all
    tasks joined as one, on the CPU. The images are read whole from a `.npz`, which cannot be
    mapped; the export does without them. Without pyarrow the format parquet is left out.

    Yields:
        `stage`; its `seconds`; `peak_bytes`, by how much the process has grown at its peak since
        the libraries were loaded; and `image_bytes`, what the decoded images in it take.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        in_own_process(_make_run, place, settings)
        formats = [name for name in FORMATS if name != "parquet" or "pyarrow" in sys.modules]
        for name in formats:
            yield {"stage": f"export {name}", **in_own_process(_export, place, name)}
        for name in formats:
            yield {"stage": f"load_tasks {name}", **in_own_process(_load, place, name)}
        for stage, work in (("TaskDataset", _read), ("training", _train)):
            yield {"stage": stage, **in_own_process(work, place, settings)}


def _make_run(place: Path, settings: ExportBenchSettings) -> None:
    """Images in a file, and the folder of a search that found random labelings of them."""
    rng = np.random.default_rng(0)
    n, n_tasks = settings.images, settings.tasks
    pixels = rng.integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)
    np.savez(place / "images.npz", images=pixels, main=rng.integers(0, 20, n))
    images = ImageSet("arrays", pixels)
    labelings = random_labelings(n_tasks, n, n // 2, rng)
    flat = np.zeros((n_tasks, 2))
    evidence = Confirmation(
        np.full((n_tasks, 2), 0.5), np.arange(99) / 1000, flat, flat, flat[:, 0]
    )
    drawn = ImagesSettings(source="arrays", root=str(place / "images.npz"), n_images=n)
    result = SearchResult(
        SearchSettings(images=drawn, ratio=1, tasks=n_tasks),
        images,
        [Trial(labeling, 0.5) for labeling in labelings],
        list(range(n_tasks)),
        evidence,
        {"search": 0.0, "confirm": 0.0},
    )
    new_folder(place / "run", result.settings, images, Pool(1, "cpu")).close()
    write_npz(place / "run" / TASKS, result.task_arrays())
    write_json(place / "run" / RESULT, result.to_dict())


@contextmanager
def _measured() -> Iterator[dict[str, Any]]:
    """Filled with the time and the growth of this process."""
    found: dict[str, Any] = {"image_bytes": 0}
    before, _ = resident_bytes()
    start = time.perf_counter()
    yield found
    found["seconds"] = time.perf_counter() - start
    found["peak_bytes"] = resident_bytes()[1] - before


def _file(place: Path, name: str) -> Path:
    return place / f"tasks{FORMATS[name].ending}"


def _images(place: Path, found: dict[str, Any]) -> ImageSet:
    images = load_images("arrays", root=place / "images.npz", cache=False)
    found["image_bytes"] = images.images.nbytes
    return images


def _export(place: Path, name: str) -> dict[str, Any]:
    with _measured() as found:
        export_tasks([place / "run"], _file(place, name))
    return found


def _load(place: Path, name: str) -> dict[str, Any]:
    with _measured() as found:
        load_tasks(_file(place, name), _images(place, found))
    return found


def _read(place: Path, settings: ExportBenchSettings) -> dict[str, Any]:
    with _measured() as found:
        dataset = TaskDataset(_images(place, found), "main", _file(place, "npz"))
        batches = iter(DataLoader(dataset, batch_size=settings.batch, shuffle=True))
        for _ in range(N_STEPS):
            next(batches)
    return found


def _train(place: Path, settings: ExportBenchSettings) -> dict[str, Any]:
    row = RowSettings.model_validate({"training": {"batch": settings.batch, "epochs": 1}})
    with _measured() as found:
        images = _images(place, found)
        split = split_of(len(images), 0.15, 0.2, 0)
        tasks = joined(auxiliary_tasks(str(_file(place, "npz")), images, split, 0))
        module = module_of(images.images, [tasks], split, row)
        trainer = lightning_on(
            "cpu",
            max_epochs=1,
            limit_train_batches=N_STEPS,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        with quietly():
            trainer.fit(module)
    return found
