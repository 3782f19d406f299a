"""A table of runs, from what their folders hold."""

from pathlib import Path
from typing import Any

from taskdisc.discovery.folder import RESULT, TRIALS, folder_settings, read_result
from taskdisc.errors import SettingError, TaskdiscError
from taskdisc.folder import CONFIG, SEARCH, made_by
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
        (
            "run",
            "made_by",
            "source",
            "ratio",
            "proposer",
            "seed",
            "trials",
            "tasks",
            "confirmed",
            "state",
        ),
        "–",
    )
    row["run"] = path.name
    try:
        row["made_by"] = made_by(path)
        if row["made_by"] != SEARCH:
            from taskdisc.studies.run import TABLE, progress_of  # slow; searches need none of it

            n_done, n_cells, settings_of_study = progress_of(path)
            row["seed"] = getattr(settings_of_study, "seed", "–")
            if hasattr(settings_of_study, "images"):
                row["source"] = settings_of_study.images.source
            finished = n_done == n_cells and (path / TABLE).is_file()
            row["state"] = "finished" if finished else f"unfinished: {n_done} of {n_cells} cells"
            return row
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
