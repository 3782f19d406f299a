"""A table of runs, from what their folders hold."""

import json
from pathlib import Path
from typing import Any

from taskdisc.discovery.folder import CONFIG, RESULT, TRIALS, folder_settings
from taskdisc.errors import RunFolderError, SettingError, TaskdiscError
from taskdisc.journal import read_journal


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """One row per run below `folder`, by name; a damaged run has its fault for a state.

    Raises:
        SettingError: the folder does not exist.
    """
    if not folder.is_dir():
        raise SettingError(
            f"the folder of runs must exist, got '{folder}'; make a run with: taskdisc search"
        )
    return [_row(path.parent) for path in sorted(folder.glob(f"*/{CONFIG}"))]


def _row(path: Path) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(
        ("run", "source", "ratio", "proposer", "seed", "trials", "tasks", "confirmed", "state"), "–"
    )
    row["run"] = path.name
    try:
        settings = folder_settings(path)
        n_trials = len(read_journal(path / TRIALS))
        row.update(
            source=settings.images.source,
            ratio=f"1:{settings.ratio}",
            proposer=settings.proposer,
            seed=settings.seed,
            trials=f"{n_trials}/{settings.budget}",
            state="unfinished",
        )
        if (path / RESULT).is_file():
            result = read_result(path)
            row.update(tasks=sum(task["is_task"] for task in result["tasks"]), state="finished")
            if result["tasks"]:
                row["confirmed"] = result["tasks"][0]["confirmed"]["mean"]
    except TaskdiscError as error:
        row["state"] = f"damaged: {error}"
    return row


def read_result(path: Path) -> dict[str, Any]:
    """The `result.json` of a run folder.

    Raises:
        RunFolderError: it is no result of this program.
    """
    try:
        result = json.loads((path / RESULT).read_text())
        for task in result["tasks"]:
            task["is_task"], task["confirmed"]["mean"]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise RunFolderError(
            f"'{path / RESULT}' must be the result of a search, but it is damaged; "
            f"remove it and write it again with: taskdisc search --resume {path}"
        ) from error
    return dict(result)
