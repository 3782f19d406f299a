"""The manifest of a file of tasks: what it says, and whether its arrays are as it says.

It holds `schema`; `made_by` and `taskdisc`, the command and the version that wrote the file;
`images` (`n`, `content`: the content hash of the set; `source`, `split`, `size` and `drawn`: the
settings that chose them, null for the default); `runs`, of each its name, seed and settings;
`digest`, of labels, indices and hashes; `tasks`, of each `key`, `name`, `run`, `seed`, `taskness`,
`sem`, `p_adjusted`, `agreement` and what else is known. Null stands for what is not known.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taskdisc.errors import RunFolderError, SettingError, shown
from taskdisc.json_text import parse_json

if TYPE_CHECKING:
    from taskdisc.config import ImagesSettings

SCHEMA = 1
"""Version of the manifest; a change that breaks a reader raises it."""


MISSING = -1
"""Stands in an array for the label that an image does not have."""

INDEX, HASH = "index", "hash"
"""The columns of a table that name the image of a line, before those of the tasks."""

NUMBERS = ("taskness", "sem", "p_adjusted")
"""What every file says of a task as a number."""


@dataclass(frozen=True, eq=False)
class Content:
    """What a file of tasks holds.

    Attributes:
        manifest: Plain values; see above.
        labelings: int8 or uint8 [n_tasks, n_images], 0, 1 or, where unknown, −1.
        indices: Position of each image in its source's split, int64 [n_images].
        hashes: Content hash of each image, text [n_images].
    """

    manifest: dict[str, Any]
    labelings: np.ndarray
    indices: np.ndarray
    hashes: np.ndarray

    @property
    def names(self) -> list[str]:
        """The names of the tasks."""
        return [task["name"] for task in self.manifest["tasks"]]


MOST_LETTERS = 2**26
"""Of an array of text, which takes 4 bytes for each: 256 MB."""


def text_array(texts: Sequence[str], n: int = 0) -> np.ndarray:
    """Texts as an array, in which each takes as much as the longest.

    Args:
        texts: Of the array.
        n: Of the array that they will be in, where it has more.

    Raises:
        ValueError: it takes too much.
    """
    longest = max(map(len, texts), default=0)
    if longest * max(n, len(texts)) > MOST_LETTERS:
        raise ValueError(f"it has a text of {longest:,} letters")
    return np.array(texts, dtype=np.str_)


def digest_of(labelings: np.ndarray, indices: np.ndarray, hashes: np.ndarray) -> str:
    """16 hex digits that change with any label, index, hash or their order."""
    digest = hashlib.sha256(repr(labelings.shape).encode())
    digest.update(np.ascontiguousarray(labelings, dtype=np.int8).tobytes())
    digest.update(np.ascontiguousarray(indices, dtype="<i8").tobytes())
    digest.update("\n".join(hashes.tolist()).encode())
    return digest.hexdigest()[:16]


def content_of(hashes: np.ndarray) -> str:
    """The content hash of an image set with these hashes, as `ImageSet.content_hash` has it."""
    return hashlib.sha256("".join(hashes.tolist()).encode()).hexdigest()[:16]


def make_manifest(
    labelings: np.ndarray,
    indices: np.ndarray,
    hashes: np.ndarray,
    tasks: Sequence[Mapping[str, Any]],
    *,
    made_by: str,
    images: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """A manifest of these arrays, as plain values."""
    return {
        "schema": SCHEMA,
        "made_by": made_by,
        "taskdisc": version("taskdisc"),
        "images": {**images, "n": len(hashes), "content": content_of(hashes)},
        "runs": [dict(run) for run in runs],
        "digest": digest_of(labelings, indices, hashes),
        "tasks": [dict(task) for task in tasks],
    }


def images_facts(settings: "ImagesSettings") -> dict[str, Any]:
    """What a manifest says of images that were selected by these settings."""
    facts = settings.model_dump()
    drawn = ("target", "class_a", "n_classes", "per_class", "n_images", "seed")
    return {
        "source": facts["source"],
        "split": facts["split"],
        "size": facts["size"],
        "drawn": {name: facts[name] for name in drawn},
    }


def check_names(names: Sequence[str]) -> None:
    """Refuse names by which a reader could not tell tasks, or a column from one of the images.

    Raises:
        SettingError: a name stands twice, is taken, or is no text that can be written.
    """
    for name in names:
        if names.count(name) > 1:
            raise SettingError(
                f"every name must stand for one labeling, got {name!r} {names.count(name)} times; "
                "rename all but one in the gallery and save again."
            )
        if name in (INDEX, HASH, "") or not _is_writable(name):
            raise SettingError(
                f"a name must be text other than '{INDEX}' and '{HASH}', the columns of the "
                f"images, got {name!r}; rename it in the gallery and save again."
            )


def _is_writable(name: str) -> bool:
    """Half a pair of surrogates is text to JSON, but to no file; numpy drops zeros at the end."""
    return not any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in name)


def parse_manifest(path: Path, text: str) -> dict[str, Any]:
    """The manifest that a file holds as JSON text.

    Raises:
        RunFolderError: it holds none, one of another version, or one that lacks something.
    """
    try:
        manifest = parse_json(text)
    except ValueError:
        manifest = None
    _refuse_if(path, _wrong_manifest(manifest))
    return dict(manifest)


def check_content(path: Path, content: Content) -> None:
    """Refuse a file whose arrays are not as its manifest says.

    Raises:
        RunFolderError: so it is; one sentence.
    """
    labelings, indices, hashes = content.labelings, content.indices, content.hashes
    if (
        labelings.ndim != 2
        or labelings.dtype not in (np.int8, np.uint8)
        or indices.ndim != 1
        or indices.dtype != np.int64
        or hashes.ndim != 1
        or hashes.dtype.kind != "U"
    ):
        wrong = (
            "its arrays must be labels int8 or uint8 [n_tasks, n_images], indices int64 and hashes "
            "as text"
        )
    else:
        wrong = _unfit(content)
    _refuse_if(path, wrong)


def _refuse_if(path: Path, wrong: str) -> None:
    if wrong:
        raise RunFolderError(
            f"'{path}' must be a whole file of tasks, but {wrong}; "
            "write it again with taskdisc export."
        )


def _wrong_manifest(manifest: Any) -> str:
    """What is wrong with a manifest; nothing if it is as this version writes it."""
    if not isinstance(manifest, dict) or not _is_whole(manifest.get("schema")):
        return "it has no manifest with a schema"
    if manifest["schema"] != SCHEMA:
        return (
            f"its schema is {manifest['schema']}, and this version of taskdisc reads {SCHEMA} "
            "(update taskdisc if it is older than the file)"
        )
    images, tasks = manifest.get("images"), manifest.get("tasks")
    if not isinstance(images, dict) or not _is_whole(images.get("n")):
        return "its manifest does not say of which images it is"
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        return "its manifest must have a list of tasks"
    for task in tasks:
        for name, fits in _FACTS.items():
            if not fits(task.get(name)):
                return f"`{name}` of a task in its manifest is {shown(task.get(name))}"
    for name in ("name", "key", "run"):
        longest = max((len(task.get(name) or "") for task in tasks), default=0)
        if longest * len(tasks) > MOST_LETTERS:
            return f"`{name}` of a task in its manifest has {longest:,} letters"
    return ""


def _unfit(content: Content) -> str:
    """How arrays and manifest contradict each other; nothing if they do not."""
    labelings, hashes, manifest = content.labelings, content.hashes, content.manifest
    n_tasks, n_images = len(content.names), manifest["images"]["n"]
    if len(set(content.names)) < n_tasks:
        return "two of its tasks have one name"
    if not len(hashes) == len(content.indices) == labelings.shape[1] == n_images:
        return (
            f"it holds {labelings.shape[1]} images with {len(hashes)} hashes where its manifest "
            f"says {n_images}"
        )
    if len(labelings) != n_tasks:
        return f"it holds {len(labelings)} tasks where its manifest says {n_tasks}"
    # Equal pixels at two positions are two images; image sets, CIFAR-100 among them, have such.
    if len(set(zip(hashes.tolist(), content.indices.tolist(), strict=True))) < n_images:
        return "it holds an image twice"
    others = np.setdiff1d(labelings.astype(np.int16), [0, 1, MISSING])
    if len(others):
        return f"labels must be 0, 1 or, where unknown, {MISSING}, and one is {others[0]}"
    if manifest["images"].get("content") != content_of(hashes):
        return "its manifest is that of other images"
    if manifest.get("digest") != digest_of(labelings, content.indices, hashes):
        return "its labels were changed after its manifest was written"
    return ""


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, float) or _is_whole(value)


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


_FACTS: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    "key": _is_text,
    "run": _is_text,
    "seed": lambda value: value is None or _is_whole(value),
    **dict.fromkeys((*NUMBERS, "agreement"), _is_number),
}
"""What a manifest must say of each task, null where it does not know; more is left alone."""
