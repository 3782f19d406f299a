"""Reading back the tasks that a search found."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taskdisc.discovery.folder import TASKS
from taskdisc.errors import RunFolderError, SettingError
from taskdisc.images import ImageSet
from taskdisc.labelings import read_arrays


@dataclass(frozen=True)
class Tasks:
    """Tasks over one image set, best confirmed first; none if a search found none.

    Attributes:
        labelings: uint8 [n_tasks, n_images].
        indices: Position of each image in its source's split [n_images].
        hashes: Content hash of each image [n_images].
        taskness: Confirmed taskness [n_tasks].
        sem: Its standard error [n_tasks].
        p_adjusted: Its p value, corrected over the labelings that were confirmed [n_tasks].
        names: What somebody called it in the gallery; else `labeling-<number>`, its number on the
            page of its run [n_tasks].
    """

    labelings: np.ndarray
    indices: np.ndarray
    hashes: np.ndarray
    taskness: np.ndarray
    sem: np.ndarray
    p_adjusted: np.ndarray
    names: np.ndarray

    def __len__(self) -> int:
        return len(self.labelings)


def default_names(n_labelings: int) -> np.ndarray:
    """The names of labelings that nobody named, by their numbers on the page of their run."""
    return np.array([f"labeling-{number}" for number in range(1, n_labelings + 1)], dtype=np.str_)


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


def load_tasks(path: str | Path) -> Tasks:
    """The tasks of a run folder, of its `tasks.npz`, or of a file that `taskdisc export` wrote.

    Raises:
        RunFolderError: the run has not finished, or this is no file of tasks.
    """
    path = Path(path)
    file = path / TASKS if path.is_dir() else path
    if not path.exists():
        raise RunFolderError(
            f"the tasks must be in a run folder, got '{path}', which does not exist."
        )
    if not file.is_file():
        raise RunFolderError(
            f"the tasks must be in a finished run, got '{path}', which has none; "
            f"finish the run with taskdisc search --resume {path}"
        )
    try:
        arrays = read_arrays(file)
    except SettingError as error:
        raise RunFolderError(str(error)) from error
    if "labelings" in arrays:  # a search gives no names
        arrays.setdefault("names", default_names(len(arrays["labelings"])))
    missing = set(Tasks.__dataclass_fields__) - set(arrays)
    if missing:
        raise RunFolderError(
            f"a file of tasks must hold the arrays of a run's {TASKS}, got '{file}' "
            f"without {', '.join(sorted(missing))}."
        )
    return Tasks(**{name: arrays[name] for name in Tasks.__dataclass_fields__})
