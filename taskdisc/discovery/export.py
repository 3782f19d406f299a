"""Writing the tasks of finished runs, or what somebody kept of them in the gallery, to one file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taskdisc.discovery.folder import RESULT, folder_settings, read_result
from taskdisc.discovery.formats import default_names, format_of
from taskdisc.discovery.manifest import images_facts
from taskdisc.discovery.tasks import Tasks, load_tasks, write_tasks
from taskdisc.errors import RunFolderError, SettingError
from taskdisc.folder import images_content
from taskdisc.json_text import finite, read_json
from taskdisc.labelings import from_positives, key

KEEP_SCHEMA = 1
"""Version of `keep.json`; a change that breaks a reader raises it."""


@dataclass(frozen=True, eq=False)
class Exported:
    """A labeling as it goes into the file.

    Attributes:
        key: The name of the task that it is, `labelings.key`.
        name: What somebody called it, or its number on the page of its run.
        is_task: Whether it was confirmed as a task.
        labeling: uint8 [n_images].
        taskness: Confirmed taskness.
        sem: Its standard error.
        p_adjusted: Its p value, corrected over the labelings of its own run.
        run: The name of that run.
        seed: Its seed.
        facts: Trainings that confirmed it (`n_splits`), and what the search believed (`seen`).
    """

    key: str
    name: str
    is_task: bool
    labeling: np.ndarray
    taskness: float
    sem: float
    p_adjusted: float
    run: str
    seed: int
    facts: dict[str, Any]


def export_tasks(
    folders: Sequence[Path],
    out: Path,
    keep: Path | None = None,
    format: str | None = None,
    *,
    every: bool = False,
) -> list[Exported]:
    """Write labelings of finished runs to one file, which `load_tasks` reads.

    A labeling that several runs found is taken once, with the evidence of the first of them.

    Args:
        folders: Run folders, all over the same images.
        out: The file; its ending says the format.
        keep: Decisions that the gallery saved: exactly what was kept, in their order and with
            their names. Without it, all tasks, in the order of the runs, best first.
        format: A key of `FORMATS`, which must agree with the ending.
        every: All labelings that were confirmed, whether that made them tasks or not.

    Returns:
        What was written.

    Raises:
        SettingError: `out` or `keep` break their rules, or there is nothing to write.
        RunFolderError: a run that has not finished or is damaged, or runs over different images.
    """
    format_of(out, format)  # before anything is read
    if every and keep is not None:
        raise SettingError(
            f"--keep must be left out where --all is given, got '{keep}': it says what is kept."
        )
    for folder in folders:
        if folder.is_file():
            raise RunFolderError(f"RUN must be a run folder, got the file '{folder}'.")
    first = load_tasks(folders[0])
    content = images_content(folders[0])
    for other in folders[1:]:
        load_tasks(other)
        if images_content(other) != content:
            raise RunFolderError(
                f"the runs must be over the same images, got others in '{other}' than in "
                f"'{folders[0]}'; export them one by one."
            )
    n = len(first.hashes)
    found = [row for folder in folders for row in _candidates(folder, n, len(folders) > 1)]
    chosen = found if every or keep is not None else [row for row in found if row.is_task]
    rows = {row.key: row for row in reversed(chosen)}  # the first of equals stays
    order = list(dict.fromkeys(row.key for row in chosen))
    names = {} if keep is None else read_keep(keep, content, set(rows))
    exported = [
        Exported(**{**vars(rows[name]), "name": names.get(name) or rows[name].name})
        for name in (order if keep is None else names)
    ]
    if not exported:
        raise SettingError(
            "the runs must hold at least one task to be exported, got none; write them all the "
            "same by --all, or keep some in the gallery and give its file by --keep."
        )
    write_tasks(
        out,
        Tasks(
            labelings=np.stack([row.labeling for row in exported]),
            indices=first.indices,
            hashes=first.hashes,
            taskness=np.array([row.taskness for row in exported]),
            sem=np.array([row.sem for row in exported]),
            p_adjusted=np.array([row.p_adjusted for row in exported]),
            names=np.array([row.name for row in exported], dtype=np.str_),
            keys=np.array([row.key for row in exported], dtype=np.str_),
            runs=np.array([row.run for row in exported], dtype=np.str_),
            seeds=np.array([row.seed for row in exported], dtype=np.int64),
        ),
        made_by="taskdisc export",
        images=images_facts(folder_settings(folders[0]).images),
        runs=[_run_facts(folder) for folder in folders],
        facts=[{"is_task": row.is_task, **row.facts} for row in exported],
        format=format,
    )
    return exported


def read_keep(path: Path, content: str, keys: set[str]) -> dict[str, str]:
    """What was kept in the gallery: key and name, in order; the name is empty where none was given.

    The file holds `{"schema": 1, "run": name of the run folder, "images": content hash,
    "tasks": [{"key": labelings.key, "name": text, "keep": true or false}, …]}`.

    Args:
        path: The file, as the gallery saved it.
        content: Content hash of the images of the runs.
        keys: The labelings of the runs.

    Raises:
        SettingError: no such file, not as the gallery saves it, or saved for another run.
    """
    data = _json(path)
    if data.get("schema") != KEEP_SCHEMA:
        raise SettingError(
            f"the `schema` of '{path}' must be {KEEP_SCHEMA}, got {data.get('schema')!r}; write "
            "the gallery again with taskdisc report RUN, load the file there and save it."
        )
    tasks = data.get("tasks")
    if not isinstance(tasks, list) or not all(map(_is_decision, tasks)):
        raise SettingError(
            f"the `tasks` of '{path}' must be a list of decisions, each with a text `key`, a text "
            "`name` and a `keep` that is true or false; save the file again in the gallery."
        )
    whose = f"it was saved in the gallery of {data.get('run')!r}: export that run."
    if data.get("images") != content:
        raise SettingError(
            f"the `images` of '{path}' must be those of the run, {content}, "
            f"got {data.get('images')!r}; {whose}"
        )
    seen: set[str] = set()
    for task in tasks:
        if task["key"] not in keys:
            raise SettingError(
                f"every `key` of '{path}' must be that of a labeling of the run, "
                f"got {task['key']!r}; {whose}"
            )
        if task["key"] in seen:
            raise SettingError(
                f"every `key` of '{path}' must stand there once, got {task['key']!r} twice; "
                "save the file again in the gallery."
            )
        seen.add(task["key"])
    kept = {task["key"]: task["name"].strip() for task in tasks if task["keep"]}
    if not kept:
        raise SettingError(
            f"'{path}' must keep at least one labeling, got none kept of {len(tasks)}; "
            "keep some in the gallery and save the file again."
        )
    return kept


def _json(path: Path) -> dict[str, Any]:
    try:
        data = read_json(path, any_text=True)  # `check_names` says more of odd names
    except OSError as error:
        raise SettingError(
            f"--keep must be a file that the gallery saved, got '{path}' ({error.strerror})."
        ) from error
    except ValueError as error:
        raise SettingError(
            f"'{path}' must be JSON as the gallery saves it, but is none; save it there again."
        ) from error
    if not isinstance(data, dict):
        raise SettingError(
            f"'{path}' must hold an object as the gallery saves it, "
            f"got {type(data).__name__}; save it there again."
        )
    return data


def _is_decision(task: Any) -> bool:
    return (
        isinstance(task, Mapping)
        and isinstance(task.get("key"), str)
        and isinstance(task.get("name"), str)
        and isinstance(task.get("keep"), bool)
    )


def _run_facts(folder: Path) -> dict[str, Any]:
    """What the manifest says of a run: how it searched, and what it was held against."""
    result = read_result(folder)
    told = ("seed", "ratio", "proposer", "scorer", "protocol", "threshold", "random")
    return {"name": folder.resolve().name, **{name: result.get(name) for name in told}}


def _candidates(folder: Path, n_images: int, of_several: bool) -> Iterator[Exported]:
    """All candidates of a run; of several runs, the name of each says of which it is."""
    result = read_result(folder)
    run, seed = folder.resolve().name, folder_settings(folder).seed
    names = default_names(len(result["tasks"])).tolist()
    prefix = f"{run}/" if of_several else ""
    try:
        for name, task in zip(names, result["tasks"], strict=True):
            labeling = from_positives(task["positives"], n_images)
            yield Exported(
                key=key(labeling),
                name=prefix + name,
                is_task=bool(task["is_task"]),
                labeling=labeling,
                taskness=finite(task["confirmed"]["mean"]),
                sem=finite(task["confirmed"]["sem"]),
                p_adjusted=finite(task["confirmed"]["p_adjusted"]),
                run=run,
                seed=seed,
                facts={"n_splits": task["confirmed"].get("n_splits"), "seen": task.get("seen")},
            )
    except (LookupError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"'{folder / RESULT}' must be the result of a search, but it is damaged; "
            f"remove it and write it again with: taskdisc search --resume {folder}"
        ) from error
