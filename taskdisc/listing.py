"""A table of runs, from what their folders hold."""

from pathlib import Path
from typing import Any

from taskdisc.discovery.folder import RESULT, TRIALS, folder_settings, read_result
from taskdisc.errors import SettingError, TaskdiscError
from taskdisc.folder import CONFIG, SEARCH, made_by, started
from taskdisc.journal import lines_of
from taskdisc.lock import holder

NOTHING = "–"
"""Stands where a kind of run has no such value."""

MOST_NAMED = 4
"""Rows of a comparison whose names are listed."""


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """One row per run below `folder`, by name, or that of `folder` where it is a run itself.

    A damaged run has its fault for a state.

    `done` counts the labelings that a search has scored and those that it may, or the cells that a
    study or a comparison has measured and all of them; `started` is in UTC. An unfinished run that
    a process is writing to is `running`.

    Raises:
        SettingError: the folder does not exist.
    """
    if not folder.is_dir():
        raise SettingError(
            f"the folder of runs must exist, got '{folder}'; make a run with: taskdisc search"
        )
    if (folder / CONFIG).is_file():
        return [_row(folder)]
    return [_row(path.parent) for path in sorted(folder.glob(f"*/{CONFIG}"))]


def _row(path: Path) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(
        (
            "run",
            "made_by",
            "source",
            "compares",
            "ratio",
            "proposer",
            "seed",
            "done",
            "tasks",
            "confirmed",
            "started",
            "state",
        ),
        NOTHING,
    )
    row["run"] = path.resolve().name
    try:
        row["made_by"] = made_by(path)
        row["started"] = started(path)
        row.update(_of_search(path) if row["made_by"] == SEARCH else _of_study(path))
    except TaskdiscError as error:
        row["state"] = f"damaged: {error}"
    if row["state"] == "unfinished" and holder(path):
        row["state"] = "running"
    return row


def _of_search(path: Path) -> dict[str, Any]:
    settings = folder_settings(path)
    row: dict[str, Any] = {
        "source": settings.images.source,
        "ratio": f"1:{settings.ratio}",
        "proposer": settings.proposer,
        "seed": settings.seed,
        "done": f"{sum(1 for _ in lines_of(path / TRIALS))}/{settings.budget}",
        "state": "unfinished",
    }
    if (path / RESULT).is_file():
        result = read_result(path)
        row.update(tasks=sum(task["is_task"] for task in result["tasks"]), state="finished")
        if result["tasks"]:
            row["confirmed"] = result["tasks"][0]["confirmed"]["mean"]
    return row


def _of_study(path: Path) -> dict[str, Any]:
    from taskdisc.studies.multi_task import ComparisonSettings
    from taskdisc.studies.run import TABLE, progress_of  # slow; searches need none of it

    n_done, n_cells, settings = progress_of(path)
    finished = n_done == n_cells and (path / TABLE).is_file()
    row: dict[str, Any] = {
        "seed": getattr(settings, "seed", NOTHING),
        "done": f"{n_done}/{n_cells}",
        "state": "finished" if finished else "unfinished",
    }
    images = getattr(settings, "images", None)
    if images is not None:
        row["source"] = images.source
    if isinstance(settings, ComparisonSettings):
        rows = list(settings.every_row)
        n_rows, n_seeds, named = len(rows), settings.seeds, rows[:MOST_NAMED]
        names = ", ".join(named if n_rows <= MOST_NAMED else [*named, "…"])
        row["compares"] = f"{_counted(n_rows, 'row')} × {_counted(n_seeds, 'seed')}: {names}"
    return row


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
