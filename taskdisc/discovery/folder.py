"""The files of a run: made, found again, and never shared by two processes."""

import fcntl
import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from taskdisc.config import SearchSettings, dump_settings, read_settings
from taskdisc.errors import RunFolderError, SettingError
from taskdisc.files import write_atomic, write_json
from taskdisc.images import ImageSet
from taskdisc.journal import Journal

RUNS = Path("runs")
"""Where run folders are made, below the current folder."""

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
TRIALS = "trials.jsonl"
TRAINED = "trained.jsonl"
EVIDENCE = "confirm.jsonl"
TASKS = "tasks.npz"
PICTURES = "pictures.npz"
RESULT = "result.json"
REPORT = "report.html"
GALLERY = "gallery.html"


class RunFolder:
    """An open run folder; this process alone writes to it until it is closed or dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _locked(path)
        try:
            self.trials = Journal(path / TRIALS)
            self.trained = Journal(path / TRAINED)
            self.evidence = Journal(path / EVIDENCE)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process write to the folder."""
        self._lock.close()


def new_folder(
    out: Path | None, settings: SearchSettings, images: ImageSet, device: str, jobs: int
) -> RunFolder:
    """Make a run folder and write what is known before the first trial.

    Without `out`: the first free `runs/<command>-<source>-<number>` below the current folder.

    Raises:
        RunFolderError: `out` holds something already, or cannot be made.
    """
    try:
        path = numbered(f"search-{settings.images.source}") if out is None else out
        if out is not None:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                what = "other files; name another folder."
                if (path / CONFIG).exists():
                    what = f"a run; go on with it by --resume {path}, or name another folder."
                raise RunFolderError(
                    f"`out` must be a new or empty folder, got '{path}', which holds {what}"
                )
        write_json(path / ENVIRONMENT, _environment(settings, images, device, jobs))
        # Last, because its presence is what makes a folder a run.
        write_atomic(path / CONFIG, dump_settings(settings))
    except OSError as error:
        raise RunFolderError(
            f"`out` must be a folder that can be written, got '{error.filename or out}' "
            f"({error.strerror})."
        ) from error
    return RunFolder(path)


def open_folder(path: Path) -> tuple[RunFolder, SearchSettings]:
    """A run folder to go on with, and the settings that it was started with.

    Raises:
        RunFolderError: no run folder, one that another process writes to, or a damaged one.
    """
    settings = folder_settings(path)
    return RunFolder(path), settings


def folder_settings(path: Path) -> SearchSettings:
    """The settings of a run folder.

    Raises:
        RunFolderError: the folder is missing or holds no run, or its settings are damaged.
    """
    if not (path / CONFIG).is_file():
        what = "which does not exist" if not path.exists() else f"which has no {CONFIG}"
        raise RunFolderError(
            f"the run folder must be one that a search has made, got '{path}', {what}; "
            "`taskdisc runs` lists those below runs/."
        )
    try:
        return read_settings(SearchSettings, path / CONFIG)
    except SettingError as error:
        raise RunFolderError(
            f"the run folder '{path}' must hold the settings of a search, but {error}"
        ) from error


def numbered(name: str) -> Path:
    """Make the first `runs/<name>-<number>` that does not exist yet."""
    RUNS.mkdir(exist_ok=True)
    number = 1
    while True:
        path = RUNS / f"{name}-{number:03d}"
        try:
            path.mkdir()
        except FileExistsError:  # another search may have been faster
            number += 1
        else:
            return path


def _locked(path: Path) -> IO[str]:
    """Hold the folder's lock, which the system frees when this process ends in any way."""
    try:
        file = (path / CONFIG).open("r+")
    except OSError as error:
        raise RunFolderError(
            f"the run folder must be one that can be written, got '{path}' ({error.strerror})."
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise RunFolderError(
            f"the run folder '{path}' must have one writer, and another process is writing to it; "
            "wait for it or stop it."
        ) from error
    return file


def check_images(path: Path, images: ImageSet) -> None:
    """Refuse to go on with a run on other images than it was started with.

    Raises:
        RunFolderError: the images differ, or the folder does not say what they were.
    """
    if images_content(path) != images.content_hash():
        raise RunFolderError(
            f"the images must be those that '{path}' was started with, got others; "
            "restore them, or start a new run in another folder."
        )


def images_content(path: Path) -> str:
    """The content hash of the images that a run was started with.

    Raises:
        RunFolderError: the folder does not say.
    """
    try:
        return str(json.loads((path / ENVIRONMENT).read_text())["images"]["content"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"the run folder '{path}' must hold an intact {ENVIRONMENT}; "
            "it was changed or damaged: start a new run in another folder."
        ) from error


def _environment(
    settings: SearchSettings, images: ImageSet, device: str, jobs: int
) -> dict[str, Any]:
    packages = ("torch", "torchvision", "nevergrad", "numpy", "scipy", "scikit-learn", "joblib")
    return {
        "schema": 1,
        "taskdisc": version("taskdisc"),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "device": device,
        "jobs": jobs,
        "seed": settings.seed,
        "images": {"n": len(images), "content": images.content_hash()},
        "command": ["taskdisc", *sys.argv[1:]],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
