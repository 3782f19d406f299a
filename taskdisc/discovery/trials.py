"""The trials of a search, packed: a long one has a million of them."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np


@dataclass(frozen=True)
class Trial:
    """One scored labeling of a search."""

    labeling: np.ndarray  # uint8 [n_images]
    taskness: float


class Labelings(Sequence[np.ndarray]):
    """Labelings uint8 [n_images] that can be added to, held in a bit for each image.

    Args:
        n_images: Of each labeling.
    """

    def __init__(self, n_images: int) -> None:
        self.n_images = n_images
        self._n_bytes = (n_images + 7) // 8
        self._bits = bytearray()
        self._n = 0

    def add(self, labeling: np.ndarray) -> None:
        """One more."""
        self._bits += np.packbits(labeling).tobytes()
        self._n += 1

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._n))]
        start = range(self._n)[index] * self._n_bytes
        packed = np.frombuffer(self._bits[start : start + self._n_bytes], dtype=np.uint8)
        return np.unpackbits(packed, count=self.n_images)


class Trials(Sequence[Trial]):
    """The trials of a search in the order of scoring, in n_images / 8 + 8 bytes each.

    Args:
        n_images: Of each labeling.
    """

    def __init__(self, n_images: int) -> None:
        self.labelings = Labelings(n_images)
        self._taskness = array("d")

    def add(self, labeling: np.ndarray, taskness: float) -> None:
        """One more, with its labeling uint8 [n_images]."""
        self.labelings.add(labeling)
        self._taskness.append(taskness)

    @property
    def taskness(self) -> np.ndarray:
        """Of all of them [n_trials]."""
        return np.array(self._taskness)

    def with_taskness(self, changed: dict[int, float]) -> "Trials":
        """The same labelings, those at some positions with another taskness."""
        trials = Trials(self.labelings.n_images)
        trials.labelings = self.labelings
        trials._taskness = self._taskness[:]
        for position, value in changed.items():
            trials._taskness[position] = value
        return trials

    def best_first(self) -> list[int]:
        """Positions by taskness, the highest first; of equals the earlier first."""
        return np.argsort(-self.taskness, kind="stable").tolist()

    def __len__(self) -> int:
        return len(self._taskness)

    @overload
    def __getitem__(self, index: int) -> Trial: ...
    @overload
    def __getitem__(self, index: slice) -> list[Trial]: ...
    def __getitem__(self, index: int | slice) -> Trial | list[Trial]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return Trial(self.labelings[index], self._taskness[index])
