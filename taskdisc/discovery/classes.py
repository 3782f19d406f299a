"""Which known class a labeling matches. No search sees classes: people compare with them later."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from taskdisc.images import ImageSet

RECOVERED = 0.8
"""Share of a labeling's positives from which on the class that they are of counts as recovered."""

ClassMatch = TypedDict(
    "ClassMatch",
    {"class": str, "shared": int, "share": float, "recovered": bool, "flipped": bool},
)
"""The class that a labeling matches best, as `result.json` holds it.

`shared`: positives that are of the class; `share`: the same by number of positives; `flipped`: it
is the flip of the labeling, the same task at 1:1, that shares so many.
"""


def best_class(labeling: np.ndarray, numbers: np.ndarray, names: Sequence[str]) -> ClassMatch:
    """The class that shares most positives with a labeling [n_images]; of equals the first.

    A class that has as large a share of all images is no match worth the name, since any labeling
    shares as much with it; it never counts as recovered.

    Args:
        labeling: 0 and 1.
        numbers: Class number of each image.
        names: The names that the numbers stand for.
    """
    n_pos = int(labeling.sum())
    sides = [labeling == 1]
    if 2 * n_pos == len(labeling):
        sides.append(labeling == 0)
    counts = np.stack([np.bincount(numbers[side], minlength=len(names)) for side in sides])
    best = int(counts.max(axis=0).argmax())
    shared = int(counts[:, best].max())
    share = shared / n_pos
    by_chance = float(np.mean(numbers == best))
    return {
        "class": names[best],
        "shared": shared,
        "share": share,
        "recovered": share >= RECOVERED > by_chance,
        "flipped": shared > int(counts[0, best]),
    }


def recovered(tasks: Sequence[Mapping[str, Any]], images: ImageSet) -> dict[str, dict[str, Any]]:
    """How many classes came back, by target.

    `classes`: those that a task recovered, in the order of the image set; `n_classes`: how many
    the images are of; `n_by_candidates`: how many any candidate recovered, confirmed or not.

    Args:
        tasks: The candidates as `result.json` holds them, with `is_task` and `match`.
        images: What was searched.
    """
    found = {}
    for target, names in images.classes.items():
        by_candidates = {t["match"][target]["class"] for t in tasks if _hit(t, target)}
        by_tasks = {t["match"][target]["class"] for t in tasks if t["is_task"] and _hit(t, target)}
        found[target] = {
            "classes": [name for name in names if name in by_tasks],
            "n_classes": len(np.unique(images.targets[target])),
            "n_by_candidates": len(by_candidates),
        }
    return found


def match_text(match: ClassMatch, n_positives: int) -> str:
    """A match in a few letters: `2 (10 of 10)`."""
    return f"{match['class']} ({match['shared']} of {n_positives})"


def _hit(task: Mapping[str, Any], target: str) -> bool:
    return bool(task["match"][target]["recovered"])
