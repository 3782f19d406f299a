"""Images with labels for a loader of one's own: items, collation, workers, no copies."""

import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from taskdisc import TaskData, TaskDataset, Tasks
from taskdisc.discovery.tasks import write_tasks
from taskdisc.errors import ImageSetError, SettingError, TaskdiscError
from taskdisc.images import ImageSet
from taskdisc.mtl.tasks import loss_of
from taskdisc.mtl.train import quietly


def tasks_on(images: ImageSet, names: tuple[str, ...] = ("a", "b"), seed: int = 0) -> Tasks:
    labels = np.random.default_rng(seed).integers(-1, 2, (len(names), len(images)))
    nothing = np.zeros(len(names))
    return Tasks(
        labels.astype(np.int8),
        images.indices,
        np.array(images.hashes()),
        *(nothing, nothing, nothing),
        np.array(names),
    )


@pytest.fixture
def mapped(tmp_path: Path) -> ImageSet:
    """1,000 images of 32 x 32 pixels, 3 MB, mapped from a file."""
    path = tmp_path / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (1000, 32, 32, 3), dtype=np.uint8))
    numbers = np.arange(1000) % 7
    return ImageSet(
        "array",
        np.load(path, mmap_mode="r"),
        {"fine": numbers},
        {"fine": [str(number) for number in range(7)]},
    )


def test_an_item_is_an_image_and_its_labels(digits: ImageSet) -> None:
    tasks = tasks_on(digits)
    dataset = TaskDataset(digits, "digit", tasks, labelled=[0, 2])
    assert len(dataset) == 50
    assert dataset.names == ["digit", "a", "b"]
    for i, (image, labels) in enumerate(dataset):  # ends by itself
        assert image.dtype == torch.float32
        expected = torch.from_numpy(digits.images[i]).permute(2, 0, 1).float() / 255
        assert torch.equal(image, expected)
        assert image.is_contiguous()
        assert list(labels) == dataset.names
        assert labels["digit"].dtype == torch.int64 and labels["digit"].shape == ()
        assert int(labels["digit"]) == (digits.targets["digit"][i] if i in (0, 2) else -1)
        for row, name in zip(tasks.labelings, ("a", "b"), strict=True):
            assert labels[name].dtype == torch.float32 and labels[name].shape == (1,)
            value = float(labels[name])
            assert np.isnan(value) if row[i] < 0 else value == row[i]


def test_any_loader_batches_it_for_the_losses_of_this_package(digits: ImageSet) -> None:
    dataset = TaskDataset(digits, "digit", tasks_on(digits), labelled=range(0, 50, 3))
    pixels, labels = next(iter(DataLoader(dataset, batch_size=8)))
    assert pixels.shape == (8, 3, *digits.images.shape[1:3])
    assert labels["digit"].shape == (8,) and labels["a"].shape == (8, 1)
    logits = torch.randn(8, 10)
    known = labels["digit"] >= 0
    assert loss_of("classification", logits, labels["digit"]) == pytest.approx(
        float(nn.functional.cross_entropy(logits[known], labels["digit"][known]))
    )
    assert loss_of("binary", torch.zeros(8, 1), labels["a"]) == pytest.approx(np.log(2))


def test_parts_may_be_left_out(digits: ImageSet, tmp_path: Path) -> None:
    assert TaskDataset(digits)[3][1] == {}
    assert list(TaskDataset(digits, "digit")[3][1]) == ["digit"]
    write_tasks(tmp_path / "t.pt", tasks_on(digits), made_by="a test", images={})
    found = TaskDataset(digits, tasks=tmp_path / "t.pt")
    assert found.names == ["a", "b"]
    array = TaskDataset(digits.images, tasks=str(tmp_path / "t.pt"))
    assert str(array[4][1]) == str(found[4][1])


def test_images_that_tasks_do_not_know_have_no_label(digits: ImageSet) -> None:
    few = digits.take([30, 10, 20])
    dataset = TaskDataset(digits, "digit", tasks_on(few))
    known = [i for i in range(50) if not dataset[i][1]["a"].isnan()]
    expected = {30: 0, 10: 1, 20: 2}
    assert set(known) == {i for i, at in expected.items() if tasks_on(few).labelings[0, at] >= 0}


def test_a_transform_sees_the_image(digits: ImageSet) -> None:
    plain, turned = TaskDataset(digits), TaskDataset(digits, transform=lambda image: image.flip(2))
    assert torch.equal(turned[5][0], plain[5][0].flip(2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"main": "digti"}, "did you mean 'digit'"),
        ({"main": "digit", "names": ("digit", "b")}, "differ from `main` .* got 'digit' twice"),
        ({"names": ("b", "b")}, "got 'b' twice"),
        ({"labelled": [0]}, "`labelled` must be left out where `main` is"),
        ({"main": "digit", "labelled": [50]}, r"from 0 to 49, got int64 \[1\] from 50 to 50"),
        ({"main": "digit", "labelled": [-1]}, "from -1 to -1"),
        ({"main": "digit", "labelled": [True]}, "got bool"),
        ({"main": "digit", "labelled": []}, r"got float64 \[0\]"),
        ({"tasks": "nowhere"}, "does not exist"),
        ({"of": 3}, "got 47 of them not among"),
    ],
)
def test_bad_input(digits: ImageSet, options: dict[str, Any], words: str) -> None:
    names, of = options.pop("names", None), options.pop("of", 50)
    if names:
        options["tasks"] = tasks_on(digits, names)
    if of != 50:
        options["tasks"] = tasks_on(digits)
    with pytest.raises(TaskdiscError, match=words) as raised:
        TaskDataset(digits.take(np.arange(of)), **options)
    assert "\n" not in str(raised.value)


# No copies.


def test_images_are_not_copied(mapped: ImageSet) -> None:
    tasks = tasks_on(mapped, tuple(f"task {i}" for i in range(8)))
    tracemalloc.start()
    try:
        dataset = TaskDataset(mapped, "fine", tasks)
        for _, labels in DataLoader(dataset, batch_size=50):
            assert len(labels) == 9
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A batch of floats is 0.6 MB, and seen twice while it is collated.
    assert most < mapped.images.nbytes / 2
    assert np.shares_memory(dataset._images, mapped.images)


def test_a_worker_maps_the_same_file(mapped: ImageSet, tmp_path: Path) -> None:
    tasks = tasks_on(mapped)
    part = ImageSet("array", mapped.images[100:300], indices=np.arange(100, 300))
    for images in (mapped, part):
        dataset = TaskDataset(images, tasks=tasks.on(mapped) if images is mapped else None)
        sent = pickle.dumps(dataset)
        assert len(sent) < 50_000
        again = pickle.loads(sent)
        assert isinstance(again._images.base, np.memmap)
        assert not again._images.flags.writeable
        for i in (0, 7, len(images) - 1):
            assert torch.equal(again[i][0], dataset[i][0])
    # Changes that only this process sees, gaps, and plain arrays go along.
    private = np.load(tmp_path / "images.npy", mmap_mode="c")
    private[0] = 7
    for images in (private, mapped.images[::2], np.array(mapped.images[:20])):
        again = pickle.loads(pickle.dumps(TaskDataset(images)))
        assert np.array_equal(again._images, images)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_give_the_same_batches(mapped: ImageSet) -> None:
    few = ImageSet(
        "array", mapped.images[:40], {"fine": mapped.targets["fine"][:40]}, mapped.classes
    )
    dataset = TaskDataset(few, "fine", tasks_on(few))
    alone = list(DataLoader(dataset, batch_size=16))
    shared = list(DataLoader(dataset, batch_size=16, num_workers=2))
    assert len(alone) == len(shared) == 3
    for (a, labels), (b, others) in zip(alone, shared, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(labels["fine"], others["fine"])
        assert torch.equal(labels["a"].nan_to_num(9), others["a"].nan_to_num(9))


def test_torch_is_not_imported_by_the_package_alone() -> None:
    code = "import sys, taskdisc; dir(taskdisc); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# The data module.


class OneLayer(LightningModule):
    """A head for each label, and counts of what it saw."""

    def __init__(self, n_pixels: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({"digit": nn.Linear(n_pixels, 10), "a": nn.Linear(n_pixels, 1)})
        self.seen = {"train": 0, "validation": 0, "test": 0}

    def _loss(self, batch: tuple[Tensor, dict[str, Tensor]], part: str) -> Tensor:
        pixels, labels = batch
        self.seen[part] += len(pixels)
        kinds = {"digit": "classification", "a": "binary"}
        outputs = {name: self.heads[name](pixels.flatten(1)) for name in kinds}
        return sum(loss_of(kind, outputs[name], labels[name]) for name, kind in kinds.items())

    def training_step(self, batch: Any, _: int) -> Tensor:
        return self._loss(batch, "train")

    def validation_step(self, batch: Any, _: int) -> None:
        self._loss(batch, "validation")

    def test_step(self, batch: Any, _: int) -> None:
        self._loss(batch, "test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning")
def test_an_epoch_of_lightning(digits: ImageSet, tmp_path: Path) -> None:
    from lightning.pytorch import Trainer

    data = TaskData(TaskDataset(digits, "digit", tasks_on(digits)), batch=8)
    module = OneLayer(digits.images[0].size)
    before = module.heads["a"].weight.detach().clone()
    with quietly():
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=tmp_path,
        )
        trainer.fit(module, datamodule=data)
        trainer.test(module, datamodule=data, verbose=False)
    assert module.seen == {"train": 32, "validation": 8, "test": 10}
    assert module.heads["a"].weight.isfinite().all()
    assert not torch.equal(module.heads["a"].weight, before)


def test_a_seed_decides_split_and_order(digits: ImageSet) -> None:
    dataset = TaskDataset(digits, "digit")

    def seen(seed: int) -> list[list[int]]:
        data = TaskData(dataset, batch=50, seed=seed)
        loaders = [data.train_dataloader(), data.train_dataloader(), data.val_dataloader()]
        return [next(iter(loader))[1]["digit"].tolist() for loader in loaders]

    assert seen(3) == seen(3)
    assert seen(3) != seen(4)
    first, second, _ = seen(3)
    assert first != second and sorted(first) == sorted(second)
    split = TaskData(dataset).split
    parts = [*split.train, *split.validation, *split.test]
    assert sorted(parts) == list(range(50))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch": 0}, "`batch` must be a whole number of at least 1, got 0"),
        ({"batch": 2.5}, "`batch` must be"),
        ({"workers": -1}, "`workers` must be"),
        ({"seed": True}, "`seed` must be"),
        ({"validation": 0.0}, "`validation` must be a share"),
        ({"test": 1.0}, "`test` must be a share"),
        ({"validation": 0.5, "test": 0.5}, "must leave images to train on"),
    ],
)
def test_bad_settings_of_loaders(digits: ImageSet, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        TaskData(TaskDataset(digits), **options)
    with pytest.raises(ImageSetError, match="there must be images"):
        TaskData(TaskDataset(digits.take([0, 1])))
