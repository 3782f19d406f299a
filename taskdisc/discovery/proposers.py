"""What to score next: proposers ask labelings and are told taskness, higher being better."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from taskdisc.errors import SettingError, did_you_mean
from taskdisc.images import ImageSet
from taskdisc.labelings import encode, random_labelings
from taskdisc.taskness.closed_form import ClosedForm


class Proposer(ABC):
    """Asks labelings in batches and is told their taskness in the order in which it asked.

    A proposer is a function of its seed and of what it was told, so a search is continued by
    telling a fresh one the journal.
    """

    @abstractmethod
    def ask(self, n_labelings: int) -> np.ndarray:
        """The next labelings uint8 [n_labelings, n_images]; they may repeat earlier ones."""

    @abstractmethod
    def tell(self, taskness: np.ndarray) -> None:
        """The taskness [n_labelings] of the labelings of the last `ask`, in their order."""


class RandomProposer(Proposer):
    """Labelings drawn uniformly: the control that every other proposer has to beat."""

    def __init__(self, image_set: ImageSet, n_pos: int, seed: int, kernel: str) -> None:
        self._shape = (len(image_set), n_pos)
        self._rng = np.random.default_rng(seed)

    def ask(self, n_labelings: int) -> np.ndarray:
        return random_labelings(n_labelings, *self._shape, self._rng)

    def tell(self, taskness: np.ndarray) -> None:
        pass


class SwapProposer(Proposer):
    """Steepest swap search on the closed form, from random labelings: its local optima.

    It needs no telling, so under the scorer `trained` it is a search in two stages: the closed form
    proposes, training scores.
    """

    def __init__(self, image_set: ImageSet, n_pos: int, seed: int, kernel: str) -> None:
        self._closed_form = ClosedForm(image_set, kernel)
        self._random = RandomProposer(image_set, n_pos, seed, kernel)

    def ask(self, n_labelings: int) -> np.ndarray:
        return np.stack([self._closed_form.climb(start) for start in self._random.ask(n_labelings)])

    def tell(self, taskness: np.ndarray) -> None:
        pass


class NevergradProposer(Proposer):
    """Any optimiser of nevergrad, moving a proposal in [0, 1]^n_images.

    The `n_pos` highest entries of a proposal are the positives. nevergrad minimises, so it is told
    the negated taskness; the order of tells decides what it asks next.

    TwoPointsDE keeps max(30, batch) individuals: a budget below that never leaves its random start.
    """

    def __init__(
        self, name: str, n_images: int, n_pos: int, seed: int, budget: int, batch: int
    ) -> None:
        import nevergrad as ng

        registry = ng.optimizers.registry
        rng = np.random.default_rng(seed)
        # Optimisers that begin at the middle, all entries alike, begin just beside it; entries that
        # stay alike are taken in a random order of the images. Else class A would come first.
        start = 0.5 + 1e-6 * (rng.random(n_images) - 0.5)
        self._order = rng.permutation(n_images)
        parametrization = ng.p.Array(init=start, lower=0.0, upper=1.0)
        parametrization.random_state.seed(int(rng.integers(2**32)))
        self._global_state = np.random.RandomState(int(rng.integers(2**32))).get_state()
        self._name = name
        self._n_pos = n_pos
        # Some optimisers take one candidate at a time and refuse `num_workers` > 1.
        self._one_at_a_time = bool(getattr(registry[name], "no_parallelization", False))
        workers = 1 if self._one_at_a_time else min(batch, budget)
        with self._nevergrad():
            self._optimiser = registry[name](parametrization, budget=budget, num_workers=workers)
        self._asked: list[ng.p.Parameter] = []

    def ask(self, n_labelings: int) -> np.ndarray:
        n_labelings = 1 if self._one_at_a_time else n_labelings
        with self._nevergrad():
            self._asked = [self._optimiser.ask() for _ in range(n_labelings)]
        labelings = np.empty((n_labelings, len(self._order)), dtype=np.uint8)
        for row, candidate in zip(labelings, self._asked, strict=True):
            row[self._order] = encode(candidate.value, self._n_pos)
        return labelings

    def tell(self, taskness: np.ndarray) -> None:
        with self._nevergrad():
            for candidate, value in zip(self._asked, taskness, strict=True):
                self._optimiser.tell(candidate, -float(value))
        self._asked = []

    @contextmanager
    def _nevergrad(self) -> Iterator[None]:
        """Around every call of an optimiser: its warnings are not ours, its randomness is.

        A few optimisers draw from numpy's global generator; they get a state of their own for the
        call, and the caller's is put back.

        Raises:
            SettingError: the optimiser cannot search this, or needs a package that is not there.
        """
        callers = np.random.get_state()
        np.random.set_state(self._global_state)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception as error:  # optimisers with requirements of their own raise what they like
            raise SettingError(
                f"`proposer` {self._name!r} cannot search {len(self._order)} images "
                f"({type(error).__name__}: {error}); choose another, such as TwoPointsDE."
            ) from error
        finally:
            self._global_state = np.random.get_state()
            np.random.set_state(callers)


def make_proposer(
    name: str, image_set: ImageSet, *, n_pos: int, seed: int, budget: int, batch: int, kernel: str
) -> Proposer:
    """The proposer of that name: a row of `PROPOSERS`, or any optimiser of nevergrad.

    Raises:
        SettingError: an unknown name; the nearest valid one is suggested.
    """
    if name in PROPOSERS:
        return PROPOSERS[name](image_set, n_pos, seed, kernel)
    check_proposer(name)
    return NevergradProposer(name, len(image_set), n_pos, seed, budget, batch)


def check_proposer(name: str) -> None:
    """Raise a SettingError, with the nearest valid name, unless a proposer has this name."""
    if name in PROPOSERS:
        return
    import nevergrad as ng

    names = set(ng.optimizers.registry)
    if name not in names:
        cure = did_you_mean(name, {*PROPOSERS, *names})
        raise SettingError(
            f"`proposer` must be {', '.join(PROPOSERS)} or an optimiser of nevergrad, "
            f"got {name!r}; {cure}"
        )


PROPOSERS: dict[str, Callable[[ImageSet, int, int, str], Proposer]] = {
    "random": RandomProposer,
    "swap": SwapProposer,
}
"""Proposers of our own by name, beside nevergrad's, from (images, n_pos, seed, kernel)."""
