"""Networks of a comparison, loaded from their folders, give what was measured of them."""

import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from taskdisc import load_network
from taskdisc.config import settings_from
from taskdisc.errors import RunFolderError, SettingError
from taskdisc.journal import read_journal
from taskdisc.mtl.backbones import make_backbone
from taskdisc.mtl.tasks import measured
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.multi_task import ComparisonSettings
from taskdisc.studies.run import StudyFolder, new_study, run_study

CELLS = ["0-equal-0", "1-shared-labels-0", "2-frozen-0", "3-dropout-0", "5-single-task-parity-0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small comparison, of rows that keep and prepare different things."""
    folder = tmp_path_factory.mktemp("loaded")
    weights = folder / "weights.pth"
    torch.save(make_backbone("convnet", (3, 16, 16), width=4).state_dict(), weights)
    frozen = {"name": "convnet", "width": 4, "mode": "last", "weights": str(weights)}
    values: dict[str, Any] = {
        "images": {"n_images": 120, "size": 16},
        "tasks": {
            "digit": {"kind": "classification", "of": "digit"},
            "parity": {"kind": "binary", "of": "digit", "positives": list("13579")},
        },
        "common": {"training": {"epochs": 3, "batch": 40, "lr": 0.01}},
        "rows": {
            "equal": {},
            "shared labels": {"architecture": "label-reuse"},
            "frozen": {"backbone": frozen},
            "dropout": {"backbone": {"name": "resnet", "depth": 8}, "tasks": ["parity"]},
        },
        "seeds": 1,
    }
    pool = Pool(1, "cpu")
    settings = settings_from(ComparisonSettings, values)
    opened: StudyFolder = new_study("mtl", settings, folder / "run", pool, Progress())
    run_study(opened, pool, Progress())
    opened.close()
    return folder / "run"


@pytest.mark.parametrize("name", CELLS)
def test_its_outputs_are_those_that_were_measured(run: Path, name: str) -> None:
    loaded = load_network(run / "cells" / name)
    (line,) = [x for x in read_journal(run / "cells.jsonl") if x["cell"] == loaded.cell]
    outputs = loaded(loaded.images.images[loaded.split.test])
    assert list(outputs) == [task.name for task in loaded.tasks] == list(line["record"]["test"])
    for task in loaded.tasks:
        labels = torch.from_numpy(task.labels[loaded.split.test])
        expected = line["record"]["test"][task.name]
        found = measured(task, outputs[task.name], labels)
        for metric, value in expected.items():
            assert found[metric] == pytest.approx(value, rel=1e-4, abs=1e-6), (task.name, metric)


def test_images_may_come_one_by_one_and_of_none_there_are_no_outputs(run: Path) -> None:
    loaded = load_network(str(run / "cells" / CELLS[1]))
    assert not loaded.network.training
    images = loaded.images.images[:3]
    together = loaded(images)
    for number in range(3):
        alone = loaded(images[number : number + 1])
        for task, outputs in alone.items():
            torch.testing.assert_close(outputs[0], together[task][number])
    assert {task: list(found.shape) for task, found in loaded(images[:0]).items()} == {
        "digit": [0, 10],
        "parity": [0, 1],
    }


def test_the_page_says_how(run: Path) -> None:
    page = (run / "report.html").read_text()
    (code,) = re.findall(r"<code>(from taskdisc import load_network.*?)</code>", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(unescape(code), names)
    n_test = len(load_network(run / "cells" / CELLS[0]).split.test)
    assert list(names["outputs"]["digit"].shape) == [n_test, 10]
    n_trainings = len(list((run / "cells").iterdir()))
    assert f"Each training is kept, {n_trainings} in all" in page


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 16, 16, 3), dtype=np.float32),
        np.zeros((2, 8, 8, 3), dtype=np.uint8),
        np.zeros((16, 16, 3), dtype=np.uint8),
        np.zeros((2, 3, 16, 16), dtype=np.uint8),
    ],
)
def test_other_images_are_refused(run: Path, images: np.ndarray) -> None:
    with pytest.raises(SettingError, match=r"must be uint8 \[n, 16, 16, 3\], .* got "):
        load_network(run / "cells" / CELLS[0])(images)


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """The same comparison, to be damaged."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


def test_a_comparison_may_be_moved(copy: Path) -> None:
    images = np.zeros((1, 16, 16, 3), dtype=np.uint8)
    assert load_network(copy / "cells" / CELLS[0])(images)["digit"].isfinite().all()


def test_folders_without_a_network(copy: Path) -> None:
    cell = copy / "cells" / CELLS[0]
    for folder in (copy, copy / "cells", copy / "cells" / "equal", copy / "0-equal-0"):
        with pytest.raises(RunFolderError, match="must be that of a training of a comparison"):
            load_network(folder)
    not_done = r"must be done and have its best\.ckpt, got one that is not; .*--resume .*copy"
    with pytest.raises(RunFolderError, match=not_done):
        load_network(copy / "cells" / "99-equal-0")
    (cell / "last.ckpt").touch()  # of a training that goes on
    with pytest.raises(RunFolderError, match=not_done):
        load_network(cell)
    (cell / "last.ckpt").unlink()
    (cell / "best.ckpt").write_bytes(b"weights")
    with pytest.raises(RunFolderError, match="cannot be read"):
        load_network(cell)
    (cell / "best.ckpt").unlink()
    with pytest.raises(RunFolderError, match=not_done):
        load_network(cell)


def test_the_network_of_another_training_is_refused(copy: Path) -> None:
    cells = copy / "cells"
    shutil.copy(cells / CELLS[1] / "best.ckpt", cells / CELLS[0] / "best.ckpt")
    with pytest.raises(
        RunFolderError, match=r"must hold the network that its folder .* got another"
    ):
        load_network(cells / CELLS[0])


def test_changed_settings_are_refused(copy: Path) -> None:
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("n_images: 120", "n_images: 100"))
    with pytest.raises(RunFolderError, match="must be as the run has written it"):
        load_network(copy / "cells" / CELLS[0])


def test_a_study_that_trains_no_such_networks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "environment.json").write_text('{"made_by": "study noise"}')
    with pytest.raises(RunFolderError, match="must be one that `taskdisc mtl` has made"):
        load_network(tmp_path / "cells" / "0-a-0")
