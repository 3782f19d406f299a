"""The folder of a run: made, and told from any other folder, whatever made it."""

import hashlib
import os
import platform
import re
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from taskdisc.config import Settings, dump_settings, read_settings
from taskdisc.errors import RunFolderError, SettingError, shown
from taskdisc.files import write_atomic, write_json
from taskdisc.images import ImageSet
from taskdisc.json_text import read_json
from taskdisc.lock import LOCK, Lock
from taskdisc.pool import Pool

RUNS = Path("runs")
"""Where run folders are made, below the current folder."""

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
REPORT = "report.html"

COMPILED = "compiled_convolutions"
"""What says in an environment whether `taskness.compiled` was used."""

ROUNDING = ("torch", "numpy")
"""Packages by which numbers may be rounded otherwise."""

SEARCH = "search"
"""What `made_by` says of a search's folder; of a study's it says `study <name>`."""


def make_folder(
    out: Path | None,
    name: str,
    made_by: str,
    settings: Settings,
    images: ImageSet | None,
    pool: Pool,
) -> Lock:
    """Make a run folder, write what is known before anything is computed, and hold its lock.

    Of several processes that ask for one folder at the same time, one gets it.

    Args:
        out: A new or empty folder; without it the first free `runs/<name>-<number>` below the
            current folder.
        name: Of the folder, where `out` gives none.
        made_by: The command and, of a study, its name.
        settings: What decides the results.
        images: What they are computed on, or their source; None if there are no such.
        pool: Where they are computed.

    Raises:
        RunFolderError: `out` holds something already, another process is just making it, or it
            cannot be made.
    """
    try:
        path = _numbered(name) if out is None else out
        path.mkdir(parents=True, exist_ok=True)
        _check_empty(path)
        lock = Lock(path)
        try:
            _check_empty(path)  # another process may have been faster
            write_json(path / ENVIRONMENT, _environment(made_by, settings, images, pool))
            # Last, because its presence is what makes a folder a run.
            write_atomic(path / CONFIG, dump_settings(settings))
        except BaseException:
            lock.close()
            raise
    except OSError as error:
        raise RunFolderError(
            f"`out` must be a folder that can be written, got '{error.filename or out}' "
            f"({error.strerror})."
        ) from error
    return lock


def _check_empty(path: Path) -> None:
    """Refuse a folder that holds more than what a process leaves that is killed in making it.

    Raises:
        RunFolderError: says what it holds.
    """
    if (path / CONFIG).exists():
        raise RunFolderError(
            f"`out` must be a new or empty folder, got '{path}', which holds a run; go on with it "
            f"by --resume {path}, or name another folder."
        )
    left = re.compile(rf"{LOCK}|{ENVIRONMENT}|\.({ENVIRONMENT}|{CONFIG})\..+")
    if not all(left.fullmatch(file.name) for file in path.iterdir()):
        raise RunFolderError(
            f"`out` must be a new or empty folder, got '{path}', which holds other files; name "
            "another folder."
        )


def made_by(path: Path) -> str:
    """What made a run folder: `search`, or `study <name>`.

    Raises:
        RunFolderError: the folder is missing, holds no run, or does not say.
    """
    if not (path / CONFIG).is_file():
        what = f"which has no {CONFIG}" if path.is_dir() else "which is a file"
        what = what if path.exists() else "which does not exist"
        raise RunFolderError(
            f"the run folder must be one that a search or a study has made, got '{path}', {what}; "
            "`taskdisc runs` lists those below runs/."
        )
    return str(_said(path).get("made_by", SEARCH))  # searches made the first folders


def started(path: Path) -> str:
    """When a run was started, in UTC to the minute: `2026-05-01 17:30`.

    Raises:
        RunFolderError: the folder does not say.
    """
    return str(_said(path, "started"))[:16].replace("T", " ")


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
    return str(_said(path, "images", "content"))


def images_note(path: Path) -> str:
    """What a user must know of how the images of a run were read; mostly nothing.

    Raises:
        RunFolderError: the folder does not say what its images are.
    """
    return str(_said(path, "images").get("note", ""))


def rounding_note(path: Path, pool: Pool) -> str:
    """What a user must know who goes on with a run elsewhere than it was started; mostly nothing.

    Raises:
        RunFolderError: the folder does not say where it was started.
    """
    started, here = _said(path, "packages"), _rounding(pool)
    # Folders of before it was noted do not say whether the convolutions were compiled.
    before = {COMPILED: _said(path).get(COMPILED, here[COMPILED])}
    before |= {name: started.get(name) for name in ROUNDING} if isinstance(started, dict) else {}
    others = [
        f"{name.replace('_', ' ')} {shown(before[name])}, not {shown(now)}"
        for name, now in here.items()
        if name in before and before[name] != now
    ]
    if not others:
        return ""
    return (
        f"the run was started with {' and '.join(others)}, so that what is computed from here on "
        "may be rounded otherwise than it would have been"
    )


def _rounding(pool: Pool) -> dict[str, Any]:
    """What decides how numbers are rounded."""
    from taskdisc.taskness.compiled import library

    compiled = pool.on_cpu and library() is not None
    return {**{name: version(name) for name in ROUNDING}, COMPILED: compiled}


S = TypeVar("S", bound=Settings)


def settings_of(path: Path, kind: type[S], run: str) -> S:
    """The settings of a run folder, which must be those that the run was started with.

    Args:
        path: The folder.
        kind: Of the settings.
        run: What has these settings, as `a search`.

    Raises:
        RunFolderError: they are no settings of this kind, or were changed since, as by a copy that
            was cut between two lines; or the folder does not say what made it.
    """
    try:
        settings = read_settings(kind, path / CONFIG)
    except SettingError as error:
        raise RunFolderError(
            f"the run folder '{path}' must hold the settings of {run}, but {error}"
        ) from error
    wanted = _said(path).get("settings")  # the first folders do not say
    if wanted is not None and wanted != _digest((path / CONFIG).read_bytes()):
        raise RunFolderError(
            f"'{path / CONFIG}' must be as the run has written it, got another; restore it, or "
            "start a new run with it in another folder."
        )
    return settings


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _said(path: Path, *names: str) -> Any:
    """What the environment of a run says under some names, one within the other."""
    try:
        value = read_json(path / ENVIRONMENT)
        for name in names:
            value = value[name]
        if not names and not isinstance(value, dict):
            raise TypeError(value)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"the run folder '{path}' must hold an intact {ENVIRONMENT}; "
            "it was changed or damaged: start a new run in another folder."
        ) from error
    return value


def _numbered(name: str) -> Path:
    """Make the first `runs/<name>-<number>` that does not exist yet."""
    RUNS.mkdir(exist_ok=True)
    number = 1
    while True:
        path = RUNS / f"{name}-{number:03d}"
        try:
            path.mkdir()
        except FileExistsError:  # another run may have been faster
            number += 1
        else:
            return path


def _environment(
    made_by: str, settings: Settings, images: ImageSet | None, pool: Pool
) -> dict[str, Any]:
    packages = ("torch", "torchvision", "nevergrad", "numpy", "scipy", "scikit-learn", "joblib")
    about: dict[str, Any] = {}
    if images is not None:
        about = {"n": len(images), "content": images.content_hash()}
        if images.notes:
            about["note"] = "; ".join(images.notes)
    return {
        "schema": 2,
        "made_by": made_by,
        "taskdisc": version("taskdisc"),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        COMPILED: _rounding(pool)[COMPILED],
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "device": ",".join(pool.devices),
        "jobs": pool.jobs,
        "seed": getattr(settings, "seed", None),
        "settings": _digest(dump_settings(settings).encode()),
        "images": about,
        "command": ["taskdisc", *sys.argv[1:]],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
