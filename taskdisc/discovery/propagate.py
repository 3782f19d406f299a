"""Propagating the tasks of a run to all images of a source: `taskdisc propagate`."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from taskdisc.config import ImagesSettings, SearchSettings, read_settings, settings_from
from taskdisc.discovery.export import export_tasks
from taskdisc.discovery.folder import folder_settings
from taskdisc.discovery.formats import format_of
from taskdisc.discovery.manifest import images_facts
from taskdisc.discovery.tasks import Tasks, load_tasks, write_tasks
from taskdisc.errors import RunFolderError, SettingError
from taskdisc.files import write_npz
from taskdisc.images import ImageSet
from taskdisc.progress import Progress
from taskdisc.taskness.propagation import Propagation, n_trained, propagate


@dataclass(frozen=True)
class Places:
    """Where the images of a run are in an image set.

    Attributes:
        of_run: Positions of the run's images, in their order [n_run].
        known: Number in the run of each image of the set, −1 for others [n_images]. A copy of an
            image of the run is known as well.
    """

    of_run: np.ndarray
    known: np.ndarray

    @property
    def others(self) -> np.ndarray:
        """Positions of the images that are not in the run."""
        return np.flatnonzero(self.known < 0)


@dataclass(frozen=True)
class Propagated:
    """Tasks of a run on all images of a set.

    Attributes:
        tasks: The tasks, on the images of their run.
        images: All images, those of the run among them.
        places: Which those are.
        result: What was predicted of the others.
    """

    tasks: Tasks
    images: ImageSet
    places: Places
    result: Propagation

    @property
    def labelings(self) -> np.ndarray:
        """1, 0, or −1 for no label, int8 [n_tasks, n_images]; the run's own images keep theirs."""
        return self._on_all(self.tasks.labelings, self.result.labels).astype(np.int8)

    @property
    def probability(self) -> np.ndarray:
        """Calibrated probability of a 1, float16 [n_tasks, n_images]; 0 or 1 for the run's own."""
        return self._on_all(self.tasks.labelings, self.result.probability).astype(np.float16)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The evidence of each task, for JSON."""
        names = self.tasks.names.tolist()
        taskness = self.tasks.taskness.tolist()
        return [
            {"task": name, "taskness": value, **row}
            for name, value, row in zip(names, taskness, self.result.to_dict(), strict=True)
        ]

    def on_all_images(self) -> Tasks:
        """The tasks on all images, with the agreement of their networks."""
        return replace(
            self.tasks,
            labelings=self.labelings,
            indices=self.images.indices,
            hashes=np.array(self.images.hashes(), dtype=np.str_),
            agreement=self.result.agreement.mean,
        )

    def _on_all(self, of_run: np.ndarray, of_others: np.ndarray) -> np.ndarray:
        known = self.places.known
        values = np.empty((len(of_run), len(known)))
        values[:, known >= 0] = of_run[:, known[known >= 0]]
        values[:, known < 0] = of_others
        return values


def tasks_to_propagate(run: Path, keep: Path | None = None) -> Tasks:
    """The tasks of a run folder or of a file of `taskdisc export`; of a folder also what was kept.

    Raises:
        RunFolderError: no finished run, or no file of tasks.
        SettingError: `keep` breaks its rules or stands beside a file, or there is no task.
    """
    if keep is None:
        tasks = load_tasks(run)
    elif not run.is_dir():
        raise SettingError(
            f"--keep must stand beside a run folder, got '{run}'; of a file all is propagated: "
            "give --keep to taskdisc export."
        )
    else:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "kept.npz"
            export_tasks([run], file, keep)
            tasks = load_tasks(file)
    if not len(tasks):
        raise SettingError(
            f"the run must hold at least one task to be propagated, got none in '{run}'; keep "
            "labelings in the gallery all the same and give its file by --keep."
        )
    return tasks


def images_to_label(
    run: Path, config: Path | None = None, given: Mapping[str, Any] | None = None
) -> ImagesSettings:
    """Which source and split is labelled: the given one, that of a config, or that of the run.

    Args:
        run: A run folder, or a file, which does not say what it is of.
        config: A YAML file with `images`.
        given: `source`, `root`, `split`, `download`; None or false is not given. Without a source
            they change that of the config or the run.

    Raises:
        SettingError: there are two sources, or none.
        RunFolderError: the run folder does not say.
    """
    changes = {name: value for name, value in (given or {}).items() if value}
    if "source" in changes and config is not None:
        raise SettingError(
            "--images must stand without --config, for both name the images, "
            f"got {changes['source']!r} and '{config}'."
        )
    base: dict[str, Any] = {}
    if "source" not in changes:
        if config is not None:
            settings = read_settings(SearchSettings, config)
        elif run.is_dir():
            settings = folder_settings(run)
        elif not run.exists():
            raise RunFolderError(
                f"RUN must be a finished run or a file of taskdisc export, got '{run}', which does "
                "not exist; `taskdisc runs` lists the runs below runs/."
            )
        else:
            raise SettingError(
                f"--images or --config must be given where RUN is a file, got '{run}', which does "
                "not say of which images it is."
            )
        base = settings.images.model_dump(include={"source", "root", "split", "download"})
    return settings_from(ImagesSettings, {**base, **changes})


def find_run(tasks: Tasks, images: ImageSet, run: Path) -> Places:
    """Where the images of a run are in an image set, by their content.

    Of several copies in the set, the one at the run's own index is taken, else the first.

    Raises:
        SettingError: some are missing, or there are no others.
    """
    digests = tasks.hashes.tolist()
    numbers = {digest: i for i, digest in reversed(list(enumerate(digests)))}
    known = np.array([numbers.get(digest, -1) for digest in images.hashes()], dtype=np.int64)
    copies: dict[str, list[int]] = {}
    for place in np.flatnonzero(known >= 0).tolist():
        copies.setdefault(digests[known[place]], []).append(place)
    n_missing = sum(digest not in copies for digest in digests)
    if n_missing:
        raise SettingError(
            f"the images must hold all {len(digests)} images of '{run}', got "
            f"'{images.source}' where {n_missing} of them are missing; name the source that the "
            "run was drawn from."
        )
    if (known >= 0).all():
        raise SettingError(
            f"the images must hold others than those of '{run}', got '{images.source}' with all "
            f"{len(images)} in the run; name a larger source or split."
        )
    of_run = np.array(
        [
            next(
                (place for place in copies[digest] if images.indices[place] == index),
                copies[digest][0],
            )
            for digest, index in zip(digests, tasks.indices.tolist(), strict=True)
        ]
    )
    known[of_run] = np.arange(len(of_run))
    return Places(of_run, known)


def check_out(out: Path) -> None:
    """Refuse a file that cannot be written, before anything is computed for it.

    Raises:
        SettingError: it has the ending of no format, or its folder is missing or read-only.
    """
    format_of(out, None)
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK) or out.is_dir():
        raise SettingError(f"--out must be a file that can be written, got '{out}'.")


def propagate_tasks(
    tasks: Tasks, images: ImageSet, run: Path, progress: Progress, **options: Any
) -> Propagated:
    """Label all images of a set by the tasks of a run.

    Args:
        tasks: On the images of the run.
        images: All images, at the network's size.
        run: Where the tasks are from, for errors.
        progress: Told what is going on.
        **options: Of `taskness.propagation.propagate`.

    Raises:
        As `find_run` and `propagate`.
    """
    places = find_run(tasks, images, run)
    progress.start("propagate", n_trained(tasks.labelings), "labelings")
    result = propagate(
        images.take(places.of_run),
        tasks.labelings,
        images.take(places.others),
        progress=progress.advance,
        **options,
    )
    progress.finish()
    return Propagated(tasks, images, places, result)


def confidence_file(out: Path) -> Path:
    """Where the probabilities of the labels in a file of propagated tasks are."""
    return out.with_name(f"{out.stem}-confidence.npz")


def write_propagated(out: Path, propagated: Propagated, settings: ImagesSettings) -> None:
    """Write the tasks on all images, which `load_tasks` reads, with the evidence of each.

    Their probabilities, and which images were known before, go to `confidence_file`.

    Raises:
        SettingError: the file cannot be written.
    """
    write_tasks(
        out,
        propagated.on_all_images(),
        made_by="propagate",
        images=images_facts(settings),
        facts=propagated.result.to_dict(),
    )
    known = propagated.places.known >= 0
    try:
        write_npz(confidence_file(out), {"probability": propagated.probability, "known": known})
    except OSError as error:
        raise SettingError(
            f"--out must be a file that can be written, got '{out}' ({error.strerror})."
        ) from error
