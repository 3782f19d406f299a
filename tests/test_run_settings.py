"""Every command that reads a run folder refuses settings that the run was not started with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_files import write_finished, write_unfinished

from taskdisc.config import SearchSettings, settings_from
from taskdisc.discovery.export import export_tasks
from taskdisc.discovery.folder import open_folder
from taskdisc.discovery.propagate import images_to_label
from taskdisc.discovery.tasks import load_tasks
from taskdisc.errors import RunFolderError
from taskdisc.folder import make_folder
from taskdisc.listing import list_runs
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.report.page import write_report
from taskdisc.studies import STUDIES
from taskdisc.studies.load_network import load_network
from taskdisc.studies.run import open_study, write_study

CHANGED = r"config\.yaml' must be as the run has written it, got another"

Reader = Callable[[Path], Any]

OF_SEARCHES: dict[str, Reader] = {
    "resume": lambda path: open_folder(path)[0].close(),
    "report": write_report,
    "export": lambda path: export_tasks([path], path.parent / "out.npz"),
    "propagate": images_to_label,
    "tasks": load_tasks,
}
OF_STUDIES: dict[str, Reader] = {
    "resume": lambda path: open_study(path, Progress()).close(),
    "report": write_study,
    "network": lambda path: load_network(path / "cells" / "0-equal-0"),
}


def saying(folder: Path) -> Path:
    """The run, which now says by a digest what its settings are, as those of today do."""
    made = folder.parent / "made"
    settings = settings_from(SearchSettings, {"seed": 0})
    make_folder(made, "search", "search", settings, None, Pool(1, "cpu")).close()
    theirs = json.loads((made / "environment.json").read_text())
    ours = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(
        json.dumps({**ours, **{n: theirs[n] for n in ("settings", "started")}})
    )
    shutil.copy(made / "config.yaml", folder / "config.yaml")
    shutil.rmtree(made)
    return folder


def cut(folder: Path) -> None:
    """Its settings end between two lines: they are settings still, but others."""
    lines = (folder / "config.yaml").read_text().splitlines(keepends=True)
    starts = [n for n, line in enumerate(lines) if not line.startswith((" ", "-"))]
    (folder / "config.yaml").write_text("".join(lines[: starts[-1]]))


@pytest.mark.parametrize("name", OF_SEARCHES)
def test_settings_of_a_search_that_were_cut_between_lines(name: str, tmp_path: Path) -> None:
    folder = saying(write_finished(tmp_path / "run"))
    OF_SEARCHES[name](folder)
    cut(folder)
    with pytest.raises(RunFolderError, match=CHANGED):
        OF_SEARCHES[name](folder)


@pytest.mark.parametrize("name", OF_SEARCHES)
def test_a_search_that_does_not_say_what_its_settings_were(name: str, tmp_path: Path) -> None:
    folder = write_finished(tmp_path / "run")
    cut(folder)
    OF_SEARCHES[name](folder)


@pytest.mark.parametrize("name", OF_STUDIES)
def test_settings_of_a_comparison_that_were_cut_between_lines(name: str, tmp_path: Path) -> None:
    settings = settings_from(STUDIES["mtl"].settings, {"rows": {"equal": {}}, "seed": 3})
    make_folder(tmp_path / "run", "mtl", "mtl", settings, None, Pool(1, "cpu")).close()
    cut(tmp_path / "run")
    with pytest.raises(RunFolderError, match=CHANGED):
        OF_STUDIES[name](tmp_path / "run")


def test_the_list_of_runs_says_so(tmp_path: Path) -> None:
    cut(saying(write_unfinished(tmp_path / "a")))
    saying(write_unfinished(tmp_path / "b"))
    settings = settings_from(STUDIES["mtl"].settings, {"rows": {"equal": {}}, "seed": 3})
    make_folder(tmp_path / "c", "mtl", "mtl", settings, None, Pool(1, "cpu")).close()
    cut(tmp_path / "c")
    states = [row["state"] for row in list_runs(tmp_path)]
    assert states[1] == "unfinished"
    assert all(state.startswith("damaged: ") and "got another" in state for state in states[::2])
