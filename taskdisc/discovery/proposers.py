"""What to score next: proposers ask labelings and are told taskness, higher being better."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from taskdisc.discovery.row import Row
from taskdisc.discovery.scorers import CLOSED_FORM
from taskdisc.discovery.space import Space
from taskdisc.discovery.swaps import WEIGHT, descend
from taskdisc.errors import SettingError, did_you_mean
from taskdisc.labelings import best_different, encode, key, random_labelings
from taskdisc.paper import Paper
from taskdisc.taskness.closed_form import closed_form_taskness, leading_vectors

FRUITLESS = 4
"""Rounds of swap search in a row that find nothing better, after which it has run dry."""

FIRMER = 2.0
"""Factor on the penalty of nearness after such a round, while there are fewer than wanted."""

SHARE = 0.75
"""Of the positives that two labelings may have in common, what they aim at in such rounds."""

N_VECTORS = 32
"""Leading eigenvectors from which `spectral` starts; all but one where there are fewer images."""


class Proposer(ABC):
    """Asks labelings in batches and is told their taskness in the order in which it asked.

    A proposer is a function of its seed and of what it was told, so a search is continued by
    telling a fresh one the journal.
    """

    @abstractmethod
    def ask(self, n_labelings: int) -> np.ndarray:
        """The next labelings uint8 [n_labelings, n_images]; they may repeat earlier ones.

        Fewer where a proposer takes fewer at a time, none where it has no more.
        """

    @abstractmethod
    def tell(self, taskness: np.ndarray) -> None:
        """The taskness [n_labelings] of the labelings of the last `ask`, in their order."""


class RandomProposer(Proposer):
    """Labelings drawn uniformly: the control that every other proposer has to beat."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._rng = np.random.default_rng(space.settings.seed)

    def ask(self, n_labelings: int) -> np.ndarray:
        return random_labelings(n_labelings, self._space.n_images, self._space.n_pos, self._rng)

    def tell(self, taskness: np.ndarray) -> None:
        pass


class SwapProposer(Proposer):
    """Local optima of the closed form by swap search from random labelings, in rounds.

    What it wants is as many labelings at `min_ablation` from each other as will be confirmed, or
    trained on. As long as it has fewer, each round stays away from those it has; it has run dry
    when some rounds in a row have not changed them. It needs no telling.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._rng = np.random.default_rng(space.settings.seed)
        # More starts at once make better use of the processor, until they leave its cache.
        self._n_starts = int(np.clip(100_000 // space.n_images, 4, 200))
        self._n_wanted = max(space.settings.tasks, space.settings.n_trained)
        self._found = np.empty((0, space.n_images), dtype=np.uint8)
        self._taskness = np.empty(0)
        self._seen: set[str] = set()
        self._n_asked = 0
        self._different: list[int] = []  # positions in `_found`
        self._fruitless = 0
        self._weight = WEIGHT

    def ask(self, n_labelings: int) -> np.ndarray:
        while len(self._found) - self._n_asked < n_labelings and self._fruitless < FRUITLESS:
            self._round()
        asked = self._found[self._n_asked : self._n_asked + n_labelings]
        self._n_asked += len(asked)
        return asked

    def tell(self, taskness: np.ndarray) -> None:
        pass

    def starts(self, n_labelings: int) -> np.ndarray:
        """Where the next round begins, uint8 [n_labelings, n_images]."""
        return random_labelings(n_labelings, self._space.n_images, self._space.n_pos, self._rng)

    def _round(self) -> None:
        space, q = self._space, self._space.quadratic
        away, least = space.known, space.settings.min_ablation
        if len(self._different) < self._n_wanted:
            away = np.concatenate([away, self._found[self._different]])
        # Once firm, to have no positives in common is too much to ask of those that are left.
        share = SHARE * (1 - least) if self._weight > WEIGHT else 0.0
        ends = descend(q, self.starts(self._n_starts), away, self._weight, share)
        taskness = closed_form_taskness(q, ends)
        order = np.argsort(-taskness, kind="stable").tolist()
        # Of many ends near to each other the best is enough; else they would use up the budget.
        for i in best_different(ends, order, len(ends), least, space.known):
            name = key(ends[i])
            if name not in self._seen:
                self._seen.add(name)
                self._found = np.concatenate([self._found, ends[i : i + 1]])
                self._taskness = np.append(self._taskness, taskness[i])
        order = np.argsort(-self._taskness, kind="stable").tolist()
        best = best_different(self._found, order, self._n_wanted, least, space.known)
        self._fruitless = self._fruitless + 1 if best == self._different else 0
        if self._fruitless and len(best) < self._n_wanted:
            self._weight *= FIRMER
        self._different = best


class SpectralProposer(SwapProposer):
    """The same from the closed form's leading eigenvectors, whose highest entries are positive.

    These are the directions that regression predicts best. First come the eigenvectors themselves,
    either sign, then random combinations of them.
    """

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self._vectors = leading_vectors(space.quadratic, space.n_images, N_VECTORS, self._rng)
        self._signed = np.concatenate([self._vectors, -self._vectors])

    def starts(self, n_labelings: int) -> np.ndarray:
        first, self._signed = self._signed[:n_labelings], self._signed[n_labelings:]
        weights = self._rng.standard_normal((n_labelings - len(first), len(self._vectors)))
        proposals = np.concatenate([first, weights @ self._vectors])
        return np.stack([encode(proposal, self._space.n_pos) for proposal in proposals])


class NevergradProposer(Proposer):
    """Any optimiser of nevergrad, moving a proposal in [0, 1]^n_images.

    The `n_pos` highest entries of a proposal are the positives. nevergrad minimises, so it is told
    the negated taskness; the order of tells decides what it asks next.

    TwoPointsDE keeps max(30, batch) individuals: a budget below that never leaves its random start.
    """

    def __init__(self, name: str, space: Space) -> None:
        import nevergrad as ng

        settings, n_images = space.settings, space.n_images
        registry = ng.optimizers.registry
        rng = np.random.default_rng(settings.seed)
        # Optimisers that begin at the middle, all entries alike, begin just beside it; entries that
        # stay alike are taken in a random order of the images. Else class A would come first.
        start = 0.5 + 1e-6 * (rng.random(n_images) - 0.5)
        self._order = rng.permutation(n_images)
        parametrization = ng.p.Array(init=start, lower=0.0, upper=1.0)
        parametrization.random_state.seed(int(rng.integers(2**32)))
        self._global_state = np.random.RandomState(int(rng.integers(2**32))).get_state()
        self._name = name
        self._n_pos = space.n_pos
        # Some optimisers take one candidate at a time and refuse `num_workers` > 1.
        self._one_at_a_time = bool(getattr(registry[name], "no_parallelization", False))
        workers = 1 if self._one_at_a_time else min(settings.batch, settings.budget)
        with self._nevergrad():
            self._optimiser = registry[name](
                parametrization, budget=settings.budget, num_workers=workers
            )
            for labeling in _optima(space, settings.warm_start):
                self._optimiser.suggest(0.25 + 0.5 * labeling[self._order])
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


def _optima(space: Space, n: int) -> np.ndarray:
    """The `n` first labelings that swap search finds, fewer where it finds no more."""
    return SwapProposer(space).ask(n) if n else np.empty((0, space.n_images), dtype=np.uint8)


def make_proposer(space: Space) -> Proposer:
    """The proposer that the settings name: a row of `PROPOSERS`, or any optimiser of nevergrad.

    Raises:
        SettingError: an unknown name; the nearest valid one is suggested.
    """
    name = space.settings.proposer
    check_proposer(name)
    return PROPOSERS[name].make(space) if name in PROPOSERS else NEVERGRAD.make(name, space)


def check_proposer(name: str, warm_start: int = 0) -> None:
    """Refuse a name that no proposer has, or a warm start of one that would ignore it.

    Raises:
        SettingError: with the nearest valid name, or the cure.
    """
    if name in PROPOSERS:
        if warm_start:
            raise SettingError(
                f"`warm_start` must be 0 where `proposer` is {name}, for only an optimiser of "
                f"nevergrad starts from local optima, got {warm_start}; leave it out."
            )
        return
    import nevergrad as ng

    names = set(ng.optimizers.registry)
    if name not in names:
        cure = did_you_mean(name, {*PROPOSERS, *names})
        raise SettingError(
            f"`proposer` must be {', '.join(PROPOSERS)} or an optimiser of nevergrad, "
            f"got {name!r}; {cure}"
        )


GLOVER = Paper("Glover", 1989, "Tabu Search, Part I", "https://doi.org/10.1287/ijoc.1.3.190")

PROPOSERS: dict[str, Row[Callable[[Space], Proposer]]] = {
    "swap": Row(
        "local optima of the closed form by swap search from random labelings",
        SwapProposer,
        GLOVER,
        CLOSED_FORM,
    ),
    "spectral": Row(
        "the same swap search, from the leading eigenvectors of the closed form",
        SpectralProposer,
        GLOVER,
        CLOSED_FORM,
    ),
    "random": Row("labelings drawn uniformly, the control", RandomProposer),
}
"""Proposers of our own by name, beside nevergrad's."""

NEVERGRAD: Row[Callable[[str, Space], Proposer]] = Row(
    "any optimiser of nevergrad, taken by its own name, such as TwoPointsDE",
    NevergradProposer,
    Paper(
        "Rapin and Teytaud",
        2018,
        "Nevergrad: A gradient-free optimization platform",
        "https://github.com/facebookresearch/nevergrad",
    ),
)
"""All others."""
