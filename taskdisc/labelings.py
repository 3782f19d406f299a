"""Labelings: binary vectors over an image set, their distance, their identity, their files."""

import csv
import hashlib
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from taskdisc.archives import one_line, read_arrays_of
from taskdisc.errors import SettingError


def n_positives(n_images: int, ratio: int) -> int:
    """Positives of a labeling with class ratio 1:`ratio` over `n_images` images.

    Raises:
        SettingError: `ratio` is below 1, or `n_images` is no multiple of `ratio` + 1.
    """
    if ratio < 1:
        raise SettingError(
            f"`ratio` must be at least 1 (one positive to one negative), got {ratio}."
        )
    if n_images < 1 or n_images % (ratio + 1):
        below = n_images // (ratio + 1) * (ratio + 1)
        cure = f"take {below} or {below + ratio + 1} images" if below else "take more images"
        raise SettingError(
            f"the number of images must be a multiple of `ratio` + 1 = {ratio + 1}, "
            f"got {n_images}; {cure}, or another ratio."
        )
    return n_images // (ratio + 1)


def encode(proposal: np.ndarray, n_pos: int) -> np.ndarray:
    """The labeling uint8 [n_images] whose positives are the `n_pos` highest entries of a proposal.

    Equal entries are taken in the order of the images.
    """
    labeling = np.zeros(len(proposal), dtype=np.uint8)
    labeling[np.argsort(-np.asarray(proposal, dtype=np.float64), kind="stable")[:n_pos]] = 1
    return labeling


def random_labelings(
    n_labelings: int, n_images: int, n_pos: int, rng: np.random.Generator
) -> np.ndarray:
    """Labelings uint8 [n_labelings, n_images], each with `n_pos` positives drawn uniformly."""
    order = np.argsort(rng.random((n_labelings, n_images)), axis=1)
    labelings = np.zeros((n_labelings, n_images), dtype=np.uint8)
    np.put_along_axis(labelings, order[:, :n_pos], 1, axis=1)
    return labelings


def ablation(a: np.ndarray, b: np.ndarray) -> float:
    """Share in [0, 1] of the positives that two labelings [n_images] do not have in common.

    1 − |A∩B| / n_pos. At 1:1 a labeling and its flip are the same task, so the smaller of the two
    distances counts and the largest possible value is 1/2.

    Raises:
        SettingError: the labelings differ in length or in their number of positives.
    """
    a, b = np.asarray(a, dtype=np.int64), np.asarray(b, dtype=np.int64)
    if a.shape != b.shape or a.ndim != 1:
        raise SettingError(
            f"two labelings must be vectors of the same length, got shapes {a.shape} and {b.shape}."
        )
    n_pos = int(a.sum())
    if n_pos != int(b.sum()):
        raise SettingError(
            "two labelings must have the same number of positives to be compared, "
            f"got {n_pos} and {int(b.sum())}."
        )
    if n_pos == 0:
        return 0.0
    common = int((a & b).sum()) / n_pos
    if 2 * n_pos == len(a):
        common = max(common, 1 - common)
    return 1 - common


def ablations(labelings: np.ndarray) -> np.ndarray:
    """`ablation` between every two labelings: [n_labelings, n_images] -> square matrix.

    Raises:
        SettingError: the labelings differ in their number of positives.
    """
    # As floats, because integers have no fast product of matrices; the counts stay exact.
    rows = np.asarray(labelings, dtype=np.float64)
    counts = rows.sum(axis=1)
    if len(set(counts.tolist())) > 1:
        raise SettingError(
            "labelings must have the same number of positives to be compared, "
            f"got from {counts.min():.0f} to {counts.max():.0f}."
        )
    common = rows @ rows.T / max(counts[0], 1)
    if 2 * counts[0] == rows.shape[1]:
        common = np.maximum(common, 1 - common)
    return 1 - common


def best_different(
    labelings: Sequence[np.ndarray] | np.ndarray,
    order: Iterable[int],
    n: int,
    min_ablation: float,
    known: np.ndarray | None = None,
) -> list[int]:
    """The first `n` labelings of an order that keep a distance from those before and from `known`.

    Args:
        labelings: uint8 [n_labelings, n_images], all with as many positives.
        order: Positions in `labelings`, best first.
        n: How many at most.
        min_ablation: The distance. At 1:1, where no two tasks can be further apart than 1/2, half
            of it is asked.
        known: Labelings to stay away from [n_known, n_images].
    """
    chosen: list[int] = []
    taken: list[np.ndarray] = [] if known is None else list(known)
    left = iter(order)
    n_at_once = 16  # mostly the first few are enough; where they are not, all of many are looked at
    while len(chosen) < n and (part := list(islice(left, n_at_once))):
        rows = np.array([labelings[i] for i in part])
        near = are_near(rows, np.array(taken), min_ablation)
        while len(chosen) < n and not near.all():
            first = int(np.argmin(near))
            chosen.append(part[first])
            taken.append(rows[first])
            near[: first + 1] = True
            near |= are_near(rows, rows[first : first + 1], min_ablation)
        n_at_once = min(2 * n_at_once, 4096)
    return chosen


def are_near(rows: np.ndarray, others: np.ndarray, min_ablation: float) -> np.ndarray:
    """Which labelings [n_rows, n_images] are nearer than `min_ablation` to any of some others.

    At 1:1 half of `min_ablation` is asked, and distances are to the nearer of labeling and flip.
    Bool [n_rows].
    """
    if not len(others):
        return np.zeros(len(rows), dtype=bool)
    n_pos = rows.sum(axis=1, dtype=np.int64)[:, None]
    # As floats, because integers have no fast product of matrices; the counts stay exact.
    common = (rows.astype(np.float32) @ others.astype(np.float32).T).astype(np.float64) / n_pos
    at_1_to_1 = 2 * n_pos == rows.shape[1]
    common = np.where(at_1_to_1, np.maximum(common, 1 - common), common)
    most = np.where(at_1_to_1, 1 - min_ablation / 2, 1 - min_ablation) + 1e-9
    return np.asarray((common > most).any(axis=1))


def is_near(
    labeling: np.ndarray, others: Sequence[np.ndarray] | np.ndarray, min_ablation: float
) -> bool:
    """Whether a labeling [n_images] is nearer than `min_ablation` to any of some others.

    At 1:1 half of `min_ablation` is asked, and distances are to the nearer of labeling and flip.
    """
    return len(others) > 0 and bool(are_near(labeling[None], np.asarray(others), min_ablation)[0])


def canonical(labeling: np.ndarray) -> np.ndarray:
    """The form that stands for a labeling and all that are the same task.

    At 1:1 the one of labeling and flip in which the first image is negative; else the labeling.
    """
    labeling = np.asarray(labeling, dtype=np.uint8)
    if 2 * int(labeling.sum()) == len(labeling) and labeling[0] == 1:
        return 1 - labeling
    return labeling


def key(labeling: np.ndarray) -> str:
    """A short name of the task that a labeling is: equal labelings, and flips at 1:1, share it."""
    packed = np.packbits(canonical(labeling)).tobytes()
    return hashlib.blake2b(packed, digest_size=8).hexdigest()


def evenly(positions: Sequence[int], most: int) -> list[int]:
    """Up to `most` of some positions, from the first to the last at even steps."""
    every = np.linspace(0, len(positions) - 1, min(most, len(positions)))
    return [positions[i] for i in every.round().astype(int)]


def from_positives(positives: Iterable[int], n_images: int) -> np.ndarray:
    """The labeling uint8 [n_images] that has these positives.

    Args:
        positives: Their positions, rising.
        n_images: Of the labeling.

    Raises:
        TypeError, ValueError: they are no rising positions of these images.
    """
    given = [index(position) for position in positives]
    if not given or given != sorted(set(given)) or not 0 <= given[0] <= given[-1] < n_images:
        raise ValueError("positives are not rising positions of images")
    labeling = np.zeros(n_images, dtype=np.uint8)
    labeling[given] = 1
    return labeling


def to_hex(labeling: np.ndarray) -> str:
    """The bits of a labeling as hexadecimal text, eight images to two digits."""
    return np.packbits(np.asarray(labeling, dtype=np.uint8)).tobytes().hex()


def from_hex(text: str, n_images: int) -> np.ndarray:
    """The labeling uint8 [n_images] that `to_hex` wrote.

    Raises:
        ValueError: the text is no hexadecimal, or of another number of images.
    """
    packed = np.frombuffer(bytes.fromhex(text), dtype=np.uint8)
    if len(packed) != -(-n_images // 8):
        raise ValueError(f"a labeling of {n_images} images has {-(-n_images // 8)} bytes")
    return np.unpackbits(packed, count=n_images)


def check_labelings(
    labelings: Any, n_images: int | None = None, name: str = "labelings"
) -> np.ndarray:
    """Labelings as uint8 [n_labelings, n_images]; a single vector becomes one row.

    Raises:
        SettingError: not a matrix of 0 and 1, missing labels (−1 in int8, as files of tasks have
            them), or rows that do not have `n_images` entries.
    """
    try:
        array = np.asarray(labelings)
    except ValueError as error:
        raise SettingError(f"`{name}` must have rows of one length, got ragged ones.") from error
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.size == 0:
        raise SettingError(
            f"`{name}` must be an array [n_labelings, n_images], got shape {array.shape}."
        )
    if n_images is not None and array.shape[1] != n_images:
        raise SettingError(
            f"`{name}` must have one entry per image, {n_images} here, got {array.shape[1]}; "
            "select the same images that the labels were made for."
        )
    if array.dtype.kind not in "buif":
        raise SettingError(f"`{name}` must hold 0 and 1 only, got {array.dtype} values.")
    if array.dtype == np.int8 and (array == -1).any():
        raise SettingError(
            f"`{name}` must have a label for every image, got {(array == -1).sum()} missing ones "
            "(-1); take labelings without missing labels, such as those of a run."
        )
    if not np.isin(array, (0, 1)).all():
        wrong = next((v for v in array.ravel().tolist() if v not in (0, 1)), None)
        raise SettingError(f"`{name}` must hold 0 and 1 only, got {wrong!r}.")
    return array.astype(np.uint8)


def read_labelings(path: Path) -> np.ndarray:
    """Labelings uint8 [n_labelings, n_images] from a `.csv` (a labeling per row) or an `.npz`.

    The `.npz` holds an array `labelings`, as `tasks.npz` of a run does. A first line of the `.csv`
    that holds words is taken as a heading.

    Raises:
        SettingError: no such file, another format, or other values than 0 and 1.
    """
    if path.is_dir():
        raise SettingError(
            f"the labels file must be a .csv or an .npz, got the folder '{path}'; of a run it is "
            f"'{path / 'tasks.npz'}'."
        )
    if not path.is_file():
        raise SettingError(f"the labels file must exist, got '{path}'.")
    if path.suffix == ".npz":
        arrays = read_arrays(path)
        if "labelings" not in arrays:
            raise SettingError(
                f"the labels file must hold an array `labelings`, got {sorted(arrays)} in '{path}'."
            )
        return check_labelings(arrays["labelings"], name=str(path))
    if path.suffix != ".csv":
        raise SettingError(f"the labels file must be a .csv or an .npz, got '{path}'.")
    # Spreadsheets begin their files with a byte order mark, which utf-8-sig drops.
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        try:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
        except csv.Error as error:
            raise SettingError(f"'{path}' must be a .csv, but is none ({error}).") from error
    if rows and rows[0][0].startswith("# {"):
        raise SettingError(
            f"the labels file must be a .csv of a labeling per row, got '{path}' of an image per "
            "row, as export writes it; export the tasks as .npz."
        )
    # A heading is a line of words alone; one odd cell among numbers is a mistake to be named.
    if rows and all(_number(cell) is None and re.search("[a-zA-Z]", cell) for cell in rows[0]):
        rows = rows[1:]
    return check_labelings(_numbers(rows, path), name=str(path))


def _numbers(rows: Sequence[Sequence[str]], path: Path) -> np.ndarray:
    if not rows:
        raise SettingError(
            f"the labels file must hold at least one labeling, got none in '{path}'."
        )
    values = []
    for line, row in enumerate(rows, start=1):
        numbers = [_number(cell) for cell in row]
        for cell, number in zip(row, numbers, strict=True):
            if number is None:
                cure = "; separate them by commas." if set(cell) & set(";| \t") else "."
                raise SettingError(
                    f"labeling {line} of '{path}' must hold 0 and 1 only, got {cell[:40]!r}{cure}"
                )
        values.append(numbers)
    lengths = sorted({len(row) for row in values})
    if len(lengths) > 1:
        raise SettingError(
            f"every labeling of '{path}' must have one entry per image, "
            f"got rows of {lengths[0]} and of {lengths[-1]} entries."
        )
    return np.array(values)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz`, never unpickled.

    Raises:
        SettingError: it is no `.npz`, it is damaged, or it holds pickled objects.
    """
    try:
        return read_arrays_of(path)
    except (OSError, ValueError) as error:
        raise SettingError(
            f"'{path}' must be an .npz of plain arrays, but it cannot be read as one "
            f"({one_line(error)})."
        ) from error
