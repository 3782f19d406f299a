import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from taskdisc import load_tasks
from taskdisc.config import ImagesSettings, SearchSettings, dump_settings
from taskdisc.discovery.propagate import (
    check_out,
    find_run,
    images_to_label,
    propagate_tasks,
    tasks_to_propagate,
)
from taskdisc.discovery.tasks import Tasks
from taskdisc.errors import RunFolderError, SettingError
from taskdisc.files import write_json, write_npz
from taskdisc.images import ImageSet, load_images, select
from taskdisc.progress import Progress


@pytest.fixture(scope="module")
def source() -> ImageSet:
    return load_images("digits", cache=False).resized(32)


def task_of(images: ImageSet, labelings: np.ndarray) -> Tasks:
    n = len(labelings)
    return Tasks(
        labelings=labelings.astype(np.uint8),
        indices=images.indices,
        hashes=np.array(images.hashes()),
        taskness=np.linspace(0.9, 0.8, n),
        sem=np.full(n, 0.01),
        p_adjusted=np.full(n, 0.02),
        names=np.array([f"name-{i}" for i in range(n)]),
    )


def exported(path: Path, tasks: Tasks) -> Path:
    columns = ("labelings", "indices", "hashes", "taskness", "sem", "p_adjusted", "names")
    write_npz(path, {name: getattr(tasks, name) for name in columns})
    return path


def run_folder(path: Path, tasks: Tasks, root: Path | None = None) -> Path:
    """What propagating needs of a run: settings, who made it, its tasks."""
    path.mkdir()
    images = ImagesSettings(n_classes=2, per_class=12)
    if root:
        images = ImagesSettings(source="arrays", root=str(root), n_images=24)
    (path / "config.yaml").write_text(dump_settings(SearchSettings(images=images)))
    write_json(path / "environment.json", {"made_by": "search"})
    exported(path / "tasks.npz", tasks)
    return path


@pytest.fixture
def chosen(source: ImageSet) -> ImageSet:
    return select(source, n_classes=2, per_class=12, seed=0)


@pytest.fixture
def tasks(chosen: ImageSet) -> Tasks:
    return task_of(chosen, (np.arange(24) < 12)[None])


def test_the_command_on_digits(tmp_path: Path, source: ImageSet) -> None:
    two = source.take(np.flatnonzero(source.targets["digit"] < 2)[:200])
    np.savez(tmp_path / "zeros-and-ones.npz", images=two.images)
    tasks = task_of(two.take(range(24)), two.targets["digit"][None, :24])
    run_folder(tmp_path / "run", tasks, tmp_path / "zeros-and-ones.npz")
    done = subprocess.run(
        [sys.executable, "-m", "taskdisc", "propagate", "run", "--members=4", "--json", "--jobs=1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["images"], said["known"]) == (200, 24)
    (row,) = said["tasks"]
    assert row["task"] == "name-0"
    assert row["sensible"] and row["expected_kappa"] > row["limit"]
    file = tmp_path / "run-propagated.npz"
    read = load_tasks(file)
    labels = read.labelings[0]
    assert read.hashes.tolist() == two.hashes()
    assert np.array_equal(labels[:24], tasks.labelings[0])
    assert (labels < 0).sum() == round(0.2 * 176)
    assert row["labelled"] == pytest.approx((labels[24:] >= 0).mean())
    assert (labels == two.targets["digit"])[labels >= 0].mean() > 0.95
    assert read.manifest["tasks"][0]["kappa"] == pytest.approx(row["kappa"])
    assert read.agreement == pytest.approx([row["agreement"]])
    with np.load(tmp_path / "run-propagated-confidence.npz") as arrays:
        assert arrays["known"].tolist() == [True] * 24 + [False] * 176
        assert ((arrays["probability"] > 0.5) == labels)[:, labels >= 0].all()
    with Image.open(tmp_path / "run-propagated.png") as picture:
        assert picture.size[0] > 900
    assert "propagate: 9/9 labelings" in done.stderr and "s left" in done.stderr


def test_the_runs_images_keep_their_labels(source: ImageSet) -> None:
    rng = np.random.default_rng(0)
    places = rng.permutation(60)[:30]
    tasks = task_of(
        source.take(places), rng.permuted(np.tile(np.arange(30) % 3 == 0, (2, 1)), axis=1)
    )
    propagated = propagate_tasks(
        tasks, source.take(range(60)), Path("run"), Progress(), n_members=4, n_steps=3, jobs=1
    )
    assert propagated.labelings.shape == (2, 60)
    assert np.array_equal(propagated.labelings[:, places], tasks.labelings)
    assert np.array_equal(propagated.probability[:, places], tasks.labelings)
    others = np.setdiff1d(np.arange(60), places)
    assert np.array_equal(propagated.labelings[:, others], propagated.result.labels)


def test_images_are_found_by_content_wherever_they_are(source: ImageSet) -> None:
    tasks = task_of(source.take([5, 3, 8]), np.ones((1, 3)))
    places = find_run(tasks, source.take([9, 8, 7, 5, 4, 3]), Path("run"))
    assert places.of_run.tolist() == [3, 5, 1]
    assert places.known.tolist() == [-1, 2, -1, 0, -1, 1]
    assert places.others.tolist() == [0, 2, 4]


def test_copies_of_an_image_are_told_apart_by_index_and_are_known(source: ImageSet) -> None:
    images = np.asarray(source.images[:6]).copy()
    images[4] = images[5] = images[1]
    full = ImageSet("array", images)
    tasks = task_of(full.take([4, 1]), np.ones((1, 2)))
    places = find_run(tasks, full, Path("run"))
    assert places.of_run.tolist() == [4, 1]
    assert places.known.tolist() == [-1, 1, -1, -1, 0, 0]  # the third copy is the run's first


def test_images_that_are_not_there(source: ImageSet, tasks: Tasks) -> None:
    some = source.take(np.setdiff1d(np.arange(1797), tasks.indices[:7]))
    words = "must hold all 24 images of 'run', got 'digits' where 7 of them are missing"
    with pytest.raises(SettingError, match=words):
        find_run(tasks, some, Path("run"))
    with pytest.raises(SettingError, match=r"others than those of 'run'.* all 24 in"):
        find_run(tasks, source.take(tasks.indices), Path("run"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("digits", None, "train")),
        ({"split": "all"}, ("digits", None, "all")),
        ({"source": "cifar10", "root": "/x"}, ("cifar10", "/x", "train")),
        ({"config": True}, ("arrays", "/y", "all")),
        ({"config": True, "root": "/z"}, ("arrays", "/z", "all")),
    ],
)
def test_which_images_are_labelled(
    tmp_path: Path, tasks: Tasks, given: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    run = run_folder(tmp_path / "run", tasks)
    other = tmp_path / "other.yaml"
    other.write_text("images: {source: arrays, root: /y, split: all, n_images: 10}\n")
    config = other if given.pop("config", False) else None
    images = images_to_label(run, config, given)
    assert (images.source, images.root, images.split) == expected
    assert images.n_images is images.per_class is None  # all of it


def test_bad_input(tmp_path: Path, tasks: Tasks) -> None:
    run = run_folder(tmp_path / "run", tasks)
    file = exported(tmp_path / "tasks.npz", tasks)
    empty = exported(tmp_path / "none.npz", task_of_none(tasks))
    for call, words in (
        (lambda: images_to_label(file), "--images or --config must be given where RUN is a file"),
        (lambda: images_to_label(run, file, {"source": "digits"}), "must stand without --config"),
        (lambda: tasks_to_propagate(empty), "at least one task to be propagated, got none in"),
        (
            lambda: tasks_to_propagate(file, tmp_path / "keep.json"),
            "--keep must stand beside a run",
        ),
        (lambda: check_out(tmp_path / "a.txt"), "with the ending .npz or"),
        (lambda: check_out(tmp_path / "none" / "a.npz"), "must be a file that can be written, got"),
    ):
        with pytest.raises(SettingError, match=re.escape(words)):
            call()
    with pytest.raises(RunFolderError, match="does not exist"):
        tasks_to_propagate(tmp_path / "nowhere")


def task_of_none(tasks: Tasks) -> Tasks:
    none = {"labelings": tasks.labelings[:0], "names": tasks.names[:0]}
    scores = {name: getattr(tasks, name)[:0] for name in ("taskness", "sem", "p_adjusted")}
    return Tasks(**{**vars(tasks), **none, **scores})
