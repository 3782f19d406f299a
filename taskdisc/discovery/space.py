"""What is searched: the labelings of an image set at one ratio, and those to stay away from."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from taskdisc.config import CLASSES, SearchSettings
from taskdisc.discovery.folder import TASKS
from taskdisc.discovery.tasks import check_made_for
from taskdisc.errors import SettingError
from taskdisc.images import ImageSet
from taskdisc.labelings import check_labelings, n_positives, read_arrays, read_labelings
from taskdisc.taskness.closed_form import Quadratic, memory, quadratic


@dataclass(frozen=True, eq=False)
class Space:
    """The labelings of `image_set` with `n_pos` positives.

    Attributes:
        image_set: The images.
        settings: What decides the search.
        known: Labelings to stay away from, uint8 [n_known, n_images].
    """

    image_set: ImageSet
    settings: SearchSettings
    known: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", _known(self.image_set, self.settings))

    @property
    def n_images(self) -> int:
        """Images, and entries of a labeling."""
        return len(self.image_set)

    @property
    def n_pos(self) -> int:
        """Positives of a labeling."""
        return n_positives(self.n_images, self.settings.ratio)

    @cached_property
    def quadratic(self) -> Quadratic:
        """The closed form, set up when it is first asked for."""
        s = self.settings.closed_form
        return quadratic(
            self.image_set,
            kernel=s.kernel,
            ridge=s.ridge,
            features=s.features,
            rank=s.rank,
            seed=self.settings.seed,
        )

    @property
    def memory(self) -> int:
        """Bytes that the closed form needs; 0 where nothing uses it."""
        s = self.settings
        form = s.closed_form
        return memory(self.n_images, form.kernel, form.rank) if s.uses_closed_form else 0

    @property
    def exponent(self) -> float:
        """How the closed form is brought to the scale of trained taskness; 1 if not measured."""
        measured = self.settings.closed_form.measured
        return measured.exponent if measured else 1.0

    def most_tasks(self) -> int | None:
        """More labelings than this cannot keep that distance from each other; None: no bound known.

        Counting, over all images, how often each is positive: K labelings whose pairs share at most
        s of their w positives have K (w²/n − s) ≤ w − s (Johnson 1962, "A new upper bound for
        error-correcting codes"). At 1:1, as vectors of ±1 and sum 0, which span d = n − 1
        dimensions, whose products are at most c n in size: K (1 − d c²) ≤ d (1 − c²) (Welch 1974,
        "Lower bounds on the maximum cross correlation of signals").
        """
        n, w = self.n_images, self.n_pos
        if self.settings.ratio == 1:
            s = int((1 - self.settings.min_ablation / 2) * w + 1e-9)
            if 2 * s < w:  # one half of the positives in common, or the other, is always more
                return 1
            c, d = 2 * s / w - 1, n - 1
            room, each = d * (1 - c**2), 1 - d * c**2
        else:
            s = int((1 - self.settings.min_ablation) * w + 1e-9)
            room, each = w - s, w**2 / n - s
        return max(1, int(room / each + 1e-9)) if each > 1e-12 else None


def _known(image_set: ImageSet, settings: SearchSettings) -> np.ndarray:
    """The labelings that `known` names; of the classes those that have the ratio's positives.

    Raises:
        SettingError: no such file, a file for other images, or labelings of another ratio.
    """
    n_images = len(image_set)
    n_pos = n_positives(n_images, settings.ratio)
    rows = [np.empty((0, n_images), dtype=np.uint8)]
    for name in settings.known:
        if name == CLASSES:
            classes = [
                (labels == number).astype(np.uint8)
                for labels in image_set.targets.values()
                for number in np.unique(labels)
                if (labels == number).sum() == n_pos
            ]
            if not classes:
                raise SettingError(
                    f"`known` must be labelings of {n_pos} positives, as `ratio` asks, got "
                    f"'{CLASSES}', and no class of these images has {n_pos}; leave it out, or "
                    "draw `ratio` + 1 classes of one size."
                )
            rows.append(np.array(classes))
            continue
        path = Path(name) / TASKS if Path(name).is_dir() else Path(name)
        is_arrays = path.suffix == ".npz" and path.is_file()
        if is_arrays and not len(read_arrays(path).get("labelings", [None])):
            continue  # a run that found no task leaves nothing to stay away from
        found = check_labelings(read_labelings(path), n_images, name="known")
        check_made_for(path, image_set)
        if (found.sum(axis=1) != n_pos).any():
            raise SettingError(
                f"`known` must be labelings of {n_pos} positives, as `ratio` asks, got others "
                f"in '{path}'."
            )
        rows.append(found)
    return np.concatenate(rows)
