"""Running studies: the same answer whatever stops them, and folders that are not theirs."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from taskdisc.config import read_settings, settings_from
from taskdisc.errors import RunFolderError, SettingError
from taskdisc.listing import list_runs
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies import STUDIES
from taskdisc.studies.run import (
    StudyFolder,
    new_study,
    open_study,
    run_study,
    study,
    write_study,
)

SEARCH = {"tasks": 1, "budget": 5, "confirm": {"n_splits": 2, "n_random": 20, "random_splits": 1}}
VALUES: dict[str, Any] = {"n_sets": 6, "n_images": 20, "search": SEARCH}
CONFIGS = Path(__file__).parents[2] / "configs"


def run_at(folder: Path, jobs: int = 1, **changes: Any) -> str:
    """The table of the study of noise, run in a folder."""
    settings = settings_from(STUDIES["noise"].settings, {**VALUES, **changes})
    opened = new_study("noise", settings, folder, Pool(jobs, "cpu"), Progress())
    run_study(opened, Pool(jobs, "cpu"), Progress())
    opened.close()
    return (folder / "table.csv").read_text()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "straight"
    run_at(folder)
    return folder


def test_a_study_leaves_all_its_files(straight: Path) -> None:
    names = {path.name for path in straight.iterdir()}
    assert names == {
        "config.yaml",
        "environment.json",
        "lock",
        "cells.jsonl",
        "table.csv",
        "reading.txt",
        "noise.png",
        "report.html",
    }
    rows = list(csv.DictReader((straight / "table.csv").read_text().splitlines()))
    assert [row["set"] for row in rows] == [str(number) for number in range(6)]
    assert json.loads((straight / "environment.json").read_text())["made_by"] == "study noise"
    again = read_settings(STUDIES["noise"].settings, straight / "config.yaml")
    assert again == settings_from(STUDIES["noise"].settings, VALUES)


def test_two_workers_and_memory_give_the_same_table(straight: Path, tmp_path: Path) -> None:
    table = (straight / "table.csv").read_text()
    assert run_at(tmp_path / "two", jobs=2) == table
    in_memory = study("noise", jobs=1, **VALUES).table
    rows = list(csv.DictReader((straight / "table.csv").read_text().splitlines()))
    assert [{k: str(v) for k, v in row.items()} for row in in_memory] == rows
    assert run_at(tmp_path / "other", seed=7) != table


def test_a_killed_study_goes_on_to_the_same_table(straight: Path, tmp_path: Path) -> None:
    folder, config = tmp_path / "killed", tmp_path / "noise.yaml"
    config.write_text(json.dumps(VALUES))
    command = [sys.executable, "-m", "taskdisc", "study", "noise", str(config)]
    process = subprocess.Popen(
        [*command, "--out", str(folder), "--jobs", "2"], stderr=subprocess.DEVNULL
    )
    journal = folder / "cells.jsonl"
    patience = time.monotonic() + 120
    while not (journal.exists() and journal.read_text().count("\n") >= 2):
        assert process.poll() is None and time.monotonic() < patience
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    n_kept = journal.read_text().count("\n")
    assert 2 <= n_kept < 6 and not (folder / "table.csv").exists()
    (row,) = list_runs(tmp_path)
    assert (row["done"], row["state"]) == (f"{n_kept}/6", "unfinished")
    with pytest.raises(RunFolderError, match=rf"got {n_kept} of 6 cells; go on with: taskdisc st"):
        write_study(folder)
    resumed = open_study(folder, Progress())
    run_study(resumed, Pool(1, "cpu"), Progress())
    resumed.close()
    assert (folder / "table.csv").read_text() == (straight / "table.csv").read_text()
    assert (folder / "reading.txt").read_text() == (straight / "reading.txt").read_text()
    (row,) = list_runs(tmp_path)
    assert (row["made_by"], row["state"]) == ("study noise", "finished")


def test_a_finished_study_is_not_measured_again(
    straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (straight / "cells.jsonl").read_text()
    (straight / "report.html").unlink()
    monkeypatch.setattr("taskdisc.studies.run._measured", None)
    opened = StudyFolder(straight)
    run_study(opened, Pool(1, "cpu"), Progress())
    opened.close()
    assert (straight / "cells.jsonl").read_text() == before
    assert (straight / "report.html").exists()


def test_folders_that_are_no_studies(straight: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="which does not exist"):
        StudyFolder(tmp_path / "nowhere")
    (tmp_path / "environment.json").write_text('{"made_by": "search"}')
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(RunFolderError, match="which is of `taskdisc search`"):
        StudyFolder(tmp_path)
    (tmp_path / "environment.json").write_text('{"made_by": "study noise"}')
    (tmp_path / "config.yaml").write_text("n_sets: -1")
    with pytest.raises(RunFolderError, match="settings of the study 'noise', but `n_sets` must"):
        StudyFolder(tmp_path)
    (tmp_path / "config.yaml").write_text("n_sets: 2")
    (tmp_path / "cells.jsonl").write_text('{"cell": {"set": 5}, "record": {}}\n')
    with pytest.raises(RunFolderError, match="must hold the cells of this study's settings"):
        write_study(tmp_path)
    held = StudyFolder(straight)
    with pytest.raises(RunFolderError, match="one writer"):
        StudyFolder(straight)
    held.close()


def test_a_study_goes_on_with_its_own_settings_and_images_only(
    straight: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(straight, changed)
    text = (changed / "config.yaml").read_text()
    (changed / "config.yaml").write_text(text.replace("n_splits: 2", "n_splits: 3"))
    with pytest.raises(RunFolderError, match=r"config.yaml' must be as the run has written it"):
        open_study(changed, Progress())
    settings = settings_from(STUDIES["real-vs-random"].settings, {})
    folder = new_study("real-vs-random", settings, tmp_path / "images", Pool(1, "cpu"), Progress())
    folder.close()
    open_study(folder.path, Progress()).close()
    environment = json.loads((folder.path / "environment.json").read_text())
    environment["images"]["content"] = "0123456789abcdef"
    (folder.path / "environment.json").write_text(json.dumps(environment))
    with pytest.raises(RunFolderError, match="the images must be those"):
        open_study(folder.path, Progress())


def test_what_is_wrong_is_said_before_a_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="did you mean 'noise'"):
        study("nois")
    with pytest.raises(SettingError, match="every cell once, got two of n_images = 30"):
        study("scale", n_images=[30, 30])
    with pytest.raises(SettingError, match="multiple of `ratio`"):
        study("noise", n_images=21)
    with pytest.raises(SettingError, match=r"multiples of `n_classes` = 10.*got 105"):
        study("class-recovery", n_images=[105])
    with pytest.raises(SettingError, match="other names than 'random labelings'"):
        study("search-comparison", searches={"random labelings": {}})
    settings = settings_from(
        STUDIES["class-recovery"].settings, {"images": {"source": "folder", "root": "nowhere"}}
    )
    with pytest.raises(Exception, match="does not exist"):
        new_study("class-recovery", settings, tmp_path / "out", Pool(1, "cpu"), Progress())
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("benefit_tasks")
@pytest.mark.parametrize("name", [name for name, row in STUDIES.items() if not row.command])
def test_every_study_has_settings_for_photographs_and_small_ones(name: str) -> None:
    kind = STUDIES[name].settings
    paths = {path.stem: path for path in CONFIGS.glob(f"*/{name}*.yaml")}
    small = paths.get(f"{name}-digits") or paths[f"{name}-small"]
    assert read_settings(kind, small) == kind()
    assert STUDIES[name].cells(read_settings(kind, paths[name]))
    assert small.read_text().startswith("# ")
