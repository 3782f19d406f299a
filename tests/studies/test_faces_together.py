"""Comparisons on faces: from CelebA's files to what is learned beside what needs no look."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_faces import HEIGHT, SOURCES_EIGHT, WIDTH, draw_faces
from torchvision import models

from taskdisc.config import read_settings, settings_from
from taskdisc.errors import SettingError
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.images import drawn
from taskdisc.studies.multi_task import ComparisonSettings, cells, measure, work_of

CONFIGS = Path(__file__).parents[2] / "configs" / "mtl"
SEEN = ("Black_Hair", "Wearing_Hat")


def faces_tasks(*names: str) -> dict[str, Any]:
    return {name: {"kind": "binary", "of": name, "also": "balanced-accuracy"} for name in names}


@pytest.mark.parametrize("name", ["celeba", "celeba-small"])
def test_the_committed_settings_are_the_source_works(name: str) -> None:
    settings = read_settings(ComparisonSettings, CONFIGS / f"{name}.yaml")
    assert tuple(settings.tasks) == tuple(SOURCES_EIGHT)
    schedules = [row.schedule.name for row in settings.rows.values()]
    assert schedules == ["all", "random-drop", "dst"]
    assert len(cells(settings)) == 3 * (3 + 8)  # and each task alone


def test_a_small_network_learns_what_is_to_be_seen(tmp_path: Path) -> None:
    settings = read_settings(
        ComparisonSettings,
        CONFIGS / "celeba-small.yaml",
        [
            f"images.root={draw_faces(tmp_path / 'faces', 200)}",
            "images.split=all", "images.size=32", "images.n_images=null", "validation=0.15",
            "common.training={epochs: 8, batch: 16, lr: 0.005, probes: 0}",
            "common.backbone={name: convnet, width: 8}",
        ],
    )  # fmt: skip
    settings = settings.model_copy(update={"tasks": {n: settings.tasks[n] for n in SEEN}})
    cell = {"row": "multi-task", "seed": 0}
    record = measure(settings, cell, Pool(1, "cpu"), Progress(), tmp_path / "run")
    for name in SEEN:
        seen, blind = record["test"][name], record["blind"][name]
        assert seen["accuracy"] > blind["accuracy"] + 0.1
        assert seen["balanced-accuracy"] > 0.8 and blind["balanced-accuracy"] == 0.5


def test_a_note_is_printed_once(tmp_path: Path) -> None:
    root = draw_faces(tmp_path / "faces", 30, shapes={5: (100, 90)})
    options = ["--root", root, "--out", tmp_path / "run", "--set", "images.split=all"]
    changes = ["--set", "images.source=celeba", "--set", "images.size=own", "--jobs", "1"]
    command = [sys.executable, "-m", "taskdisc", "study", "attributes", *map(str, options)]
    said = subprocess.run([*command, *changes], capture_output=True, text=True, check=True).stdout
    words = "1 of 30 images are not 178 x 218 pixels, and were cut and resized to that"
    assert said.count(f"note: {words}\n") == 1
    assert f"Note: {words}." in (tmp_path / "run" / "report.html").read_text()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random weights of a classifier that is a hundredth of VGG16, and cut into stages alike."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.save(models.squeezenet1_1(weights=None).state_dict(), file)
    return str(file)


def test_a_fixed_classifier_takes_faces_as_they_are(weights: str, tmp_path: Path) -> None:
    # The way of configs/mtl/celeba.yaml; VGG16 itself would take half a gigabyte and a minute.
    root = draw_faces(tmp_path / "faces", 40, shapes={5: (100, 90)})
    settings = read_settings(
        ComparisonSettings,
        CONFIGS / "celeba.yaml",
        [
            f"images.root={root}", "validation=0.2", "seeds=1",
            "common.backbone={name: 'torchvision:squeezenet1_1', mode: fixed, hidden: 64, "
            f"weights: {weights}}}",
            "common.training.epochs=2",
        ],
    )  # fmt: skip
    images = work_of(settings, {"row": "dst", "seed": 0}).images
    assert images.images.shape == (40, HEIGHT, WIDTH, 3) and len(images.notes) == 1
    for row in settings.rows:
        cell = {"row": row, "seed": 0}
        record = measure(settings, cell, Pool(1, "cpu"), Progress(), tmp_path / row)
        assert record["parameters"] == 1000 * 64 + 64 + 64 * 8 + 8
        assert list(record["test"]) == list(SOURCES_EIGHT)
        assert all(np.isfinite(metrics["accuracy"]) for metrics in record["test"].values())


def test_labelings_are_scored_at_the_networks_size() -> None:
    settings = settings_from(ComparisonSettings, {"images": {"size": 64, "n_images": 10}}).images
    with pytest.raises(SettingError, match=r"`images.size` must be left out .* 32 x 32 .* got 64"):
        drawn(settings)
    same = settings.model_copy(update={"size": 32})
    assert drawn(same).images.shape == (10, 32, 32, 3)


@pytest.mark.parametrize("size", [0, 2000, "large"])
def test_sizes_that_cannot_be(size: Any) -> None:
    with pytest.raises(SettingError, match=r"`images\.size"):
        settings_from(ComparisonSettings, {"images": {"size": size}})
