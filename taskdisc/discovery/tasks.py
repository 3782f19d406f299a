"""Reading and writing the tasks that a search found."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from taskdisc.discovery.folder import TASKS, folder_settings
from taskdisc.discovery.formats import format_of, read_content
from taskdisc.discovery.manifest import (
    MISSING,
    Content,
    check_content,
    check_names,
    make_manifest,
)
from taskdisc.errors import RunFolderError, SettingError
from taskdisc.folder import CONFIG
from taskdisc.images import ImageSet
from taskdisc.labelings import key, read_arrays


@dataclass(frozen=True, eq=False)
class Tasks:
    """Tasks over one image set, best confirmed first; none if a search found none.

    Attributes:
        labelings: uint8 [n_tasks, n_images], 0 or 1; int8 where labels are missing, −1 for those.
        indices: Position of each image in its source's split, int64 [n_images].
        hashes: Content hash of each image [n_images].
        taskness: Confirmed taskness [n_tasks].
        sem: Its standard error [n_tasks].
        p_adjusted: Its p value, corrected over the labelings that were confirmed [n_tasks].
        names: What somebody called it in the gallery; else `labeling-<number>`, its number on the
            page of its run [n_tasks].
        keys: The name of the task that each is, `labelings.key` [n_tasks]; empty where unknown.
        runs: The name of the run that found it [n_tasks]; empty where unknown.
        seeds: The seed of that run, int64 [n_tasks]; −1 where unknown.
        agreement: Agreement score in [0, 1] of networks trained on it, on images that were not
            searched [n_tasks]; NaN where it was not measured.
        manifest: That of the file that they were read from, if they were.
    """

    labelings: np.ndarray
    indices: np.ndarray
    hashes: np.ndarray
    taskness: np.ndarray
    sem: np.ndarray
    p_adjusted: np.ndarray
    names: np.ndarray
    keys: np.ndarray = None  # type: ignore[assignment]  # these four are set when left out
    runs: np.ndarray = None  # type: ignore[assignment]
    seeds: np.ndarray = None  # type: ignore[assignment]
    agreement: np.ndarray = None  # type: ignore[assignment]
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.labelings)
        if self.keys is None:
            keys = ["" if (row == MISSING).any() else key(row) for row in self.labelings]
            object.__setattr__(self, "keys", np.array(keys, dtype=np.str_))
        left_out = {
            "runs": np.full(n, "", dtype=np.str_),
            "seeds": np.full(n, -1, dtype=np.int64),
            "agreement": np.full(n, np.nan),
        }
        for name, values in left_out.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.labelings)

    def on(self, images: ImageSet) -> "Tasks":
        """The same tasks over an image set that holds all their images, and maybe others.

        Images are told by their content; of equal ones, by their position in the source. Those
        that the tasks do not know have no label (−1).

        Args:
            images: In any order.

        Raises:
            SettingError: an image of the tasks is not there.
        """
        hashes = images.hashes()
        labelings = np.full((len(self), len(images)), MISSING, dtype=np.int8)
        labelings[:, self._positions(images, hashes)] = self.labelings
        return replace(
            self,
            labelings=_fitting(labelings),
            indices=images.indices,
            hashes=np.array(hashes),
        )

    def _positions(self, images: ImageSet, hashes: list[str]) -> np.ndarray:
        """Where the tasks' images are in an image set with these hashes, int64 [n_images]."""
        here = list(zip(hashes, images.indices.tolist(), strict=True))
        there = list(zip(self.hashes.tolist(), self.indices.tolist(), strict=True))
        exact = {image: position for position, image in enumerate(here)}
        found = {image: exact[image] for image in there if image in exact}
        # Of what is left, the first of equal images is the first of them there.
        taken = set(found.values())
        left = defaultdict(list)
        for position in range(len(here) - 1, -1, -1):
            if position not in taken:
                left[hashes[position]].append(position)
        for image in there:
            if image not in found and left[image[0]]:
                found[image] = left[image[0]].pop()
        missing = [image for image in there if image not in found]
        if missing:
            digest, index = missing[0]
            why = ""
            if index in images.indices:
                why = " (that of this index has other pixels: another version, size or split)"
            raise SettingError(
                f"the images must hold all {len(there)} that the tasks were found on, got "
                f"{len(missing)} of them not among the {len(images)} of '{images.source}', such as "
                f"the one of index {index} with the hash {digest}{why}; "
                "load those that the tasks were found on."
            )
        return np.array([found[image] for image in there], dtype=np.int64)


def check_made_for(path: Path, images: ImageSet) -> None:
    """Refuse labelings that were saved with the hashes of other images.

    Raises:
        SettingError: the `.npz` names its images and they are not these.
    """
    if path.suffix != ".npz":
        return
    arrays = read_arrays(path)
    if "hashes" in arrays and arrays["hashes"].tolist() != images.hashes():
        raise SettingError(
            f"the images must be those that '{path}' was made for, got others; "
            "give the config.yaml of its run as CONFIG."
        )


def load_tasks(path: str | Path, images: ImageSet | None = None) -> Tasks:
    """The tasks of a run folder, of its `tasks.npz`, or of a file that `taskdisc export` wrote.

    Nothing is ever unpickled.

    Args:
        path: The folder, or a file that ends in `.npz`, `.csv`, `.parquet` or `.pt`.
        images: The image set that they must be of, no image less or more. The tasks come in its
            order. For a set that holds more images it is `load_tasks(path).on(images)`.

    Raises:
        RunFolderError: the run has not finished, or this is no file of tasks, a damaged one, or
            one of a later version.
        SettingError: the tasks are of other images, the file has another ending, or it needs a
            package that is missing.
    """
    path = Path(path)
    file = path / TASKS if path.is_dir() else path
    if not path.exists():
        raise RunFolderError(
            f"the tasks must be in a run folder, got '{path}', which does not exist."
        )
    if path.is_dir() and not (path / CONFIG).is_file() and not file.is_file():
        raise RunFolderError(
            f"the tasks must be in a run folder, got '{path}', which has no {CONFIG}; "
            "`taskdisc runs FOLDER` lists the runs in a folder."
        )
    if not file.is_file():
        raise RunFolderError(
            f"the tasks must be in a finished run, got '{path}', which has none; "
            f"finish the run with taskdisc search --resume {path}"
        )
    found = _as_tasks(read_content(file))
    if path.is_dir() and (path / CONFIG).is_file():  # a search does not write them into its file
        seeds = np.full(len(found), folder_settings(path).seed, dtype=np.int64)
        runs = np.array([path.resolve().name] * len(found), dtype=np.str_)
        found = replace(found, seeds=seeds, runs=runs)
    if images is None:
        return found
    placed = found.on(images)
    if len(images) > len(found.hashes):
        raise SettingError(
            f"the images must be the {len(found.hashes)} that '{path}' was made for, got "
            f"{len(images)}, those and others; for tasks with missing labels on the others use "
            "load_tasks(path).on(images)."
        )
    return placed


def write_tasks(
    path: Path,
    tasks: Tasks,
    *,
    made_by: str,
    images: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]] = (),
    facts: Sequence[Mapping[str, Any]] = (),
    format: str | None = None,
) -> None:
    """Write tasks to one file, atomically, for `load_tasks` to read.

    Args:
        path: Its ending says the format.
        tasks: What is written; their own manifest is not.
        made_by: The command that makes it.
        images: What the manifest says of the images: `manifest.images_facts` of settings.
        runs: What it says of each run, plain values.
        facts: What else it says of each task, plain values; nothing, or one for each.
        format: A key of `FORMATS`, which must agree with the ending.

    Raises:
        SettingError: format and ending do not agree, two tasks have one name, or the file cannot
            be written.
    """
    write = format_of(path, format).write
    names = tasks.names.tolist()
    check_names(names)
    rows = [
        {
            "key": tasks.keys[i].item() or None,
            "name": name,
            "run": tasks.runs[i].item() or None,
            "seed": None if tasks.seeds[i] < 0 else int(tasks.seeds[i]),
            "taskness": _number(tasks.taskness[i]),
            "sem": _number(tasks.sem[i]),
            "p_adjusted": _number(tasks.p_adjusted[i]),
            "agreement": _number(tasks.agreement[i]),
            **(facts[i] if facts else {}),
        }
        for i, name in enumerate(names)
    ]
    arrays = (_fitting(tasks.labelings), tasks.indices, tasks.hashes)
    manifest = make_manifest(*arrays, rows, made_by=made_by, images=images, runs=runs)
    content = Content(manifest, *arrays)
    check_content(path, content)
    try:
        write(path, content)
    except OSError as error:
        raise SettingError(
            f"--out must be a file that can be written, got '{path}' ({error.strerror})."
        ) from error


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _as_tasks(content: Content) -> Tasks:
    def column(name: str, unknown: Any, kind: Any) -> np.ndarray:
        values = [task.get(name) for task in content.manifest["tasks"]]
        return np.array([unknown if value is None else value for value in values], dtype=kind)

    keys = None
    if any(task.get("key") for task in content.manifest["tasks"]):
        keys = column("key", "", np.str_)
    return Tasks(
        labelings=_fitting(content.labelings),
        indices=content.indices,
        hashes=content.hashes,
        taskness=column("taskness", np.nan, np.float64),
        sem=column("sem", np.nan, np.float64),
        p_adjusted=column("p_adjusted", np.nan, np.float64),
        names=np.array(content.names, dtype=np.str_),
        keys=keys,  # type: ignore[arg-type]  # those of the labelings
        runs=column("run", "", np.str_),
        seeds=column("seed", -1, np.int64),
        agreement=column("agreement", np.nan, np.float64),
        manifest=content.manifest,
    )


def _fitting(labelings: np.ndarray) -> np.ndarray:
    """Labels as uint8, or as int8 where some are missing, in rows."""
    missing = labelings.dtype != np.uint8 and (labelings == MISSING).any()
    return np.ascontiguousarray(labelings, dtype=np.int8 if missing else np.uint8)
