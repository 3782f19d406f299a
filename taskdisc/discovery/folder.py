"""The files of a search."""

from pathlib import Path
from typing import Any

from taskdisc.config import SearchSettings
from taskdisc.errors import RunFolderError
from taskdisc.folder import SEARCH, made_by, make_folder, settings_of
from taskdisc.images import ImageSet
from taskdisc.journal import Journal
from taskdisc.json_text import read_json
from taskdisc.lock import Lock
from taskdisc.pool import Pool

TRIALS = "trials.jsonl"
TRAINED = "trained.jsonl"
EVIDENCE = "confirm.jsonl"
TASKS = "tasks.npz"
PICTURES = "pictures.npz"
RESULT = "result.json"
GALLERY = "gallery.html"


class RunFolder:
    """An open run folder; this process alone writes to it until it is closed or dies."""

    def __init__(self, path: Path, lock: Lock | None = None) -> None:
        self.path = path
        self._lock = lock or Lock(path)
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
    out: Path | None, settings: SearchSettings, images: ImageSet, pool: Pool
) -> RunFolder:
    """Make a run folder and write what is known before the first trial.

    Raises:
        RunFolderError: as `make_folder`.
    """
    name = f"search-{settings.images.source}"
    lock = make_folder(out, name, SEARCH, settings, images, pool)
    return RunFolder(lock.folder, lock)


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
        RunFolderError: the folder is missing or holds no search, or its settings are damaged or
            were changed.
    """
    maker = made_by(path)
    if maker != SEARCH:
        raise RunFolderError(
            f"the run folder must be one that a search has made, got '{path}', which is of "
            f"`taskdisc {maker}`."
        )
    return settings_of(path, SearchSettings, "a search")


def read_result(path: Path) -> dict[str, Any]:
    """The `result.json` of a run folder.

    Raises:
        RunFolderError: it is no result of this program.
    """
    try:
        result = read_json(path / RESULT)
        for task in result["tasks"]:
            task["is_task"], task["confirmed"]["mean"]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise RunFolderError(
            f"'{path / RESULT}' must be the result of a search, but it is damaged; "
            f"remove it and write it again with: taskdisc search --resume {path}"
        ) from error
    return dict(result)
