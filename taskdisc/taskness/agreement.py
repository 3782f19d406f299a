"""Agreement score: do two networks that learnt the same labeling say the same of other images?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from taskdisc.cluster import pool_for
from taskdisc.errors import SettingError
from taskdisc.images import ImageSet, as_image_set
from taskdisc.labelings import check_labelings, key, random_labelings
from taskdisc.pool import Pool
from taskdisc.taskness.confirm import check_positives
from taskdisc.taskness.score import GPU_POPULATION, POPULATION, check_memory, population_size

_STREAM = 0x6167726565  # "agree": random numbers that neither a search nor a confirmation uses


def default_steps(n_images: int) -> int:
    """Steps of full-batch Adam for an image set of this size: 50·√(n_images / 50), at least 100.

    Until the labels are known by heart, as in the source of this score. Taskness stops earlier,
    for its minimum; but after the 20 steps that it takes for 50 images, networks at 1:4 still call
    every image negative, and agree on that. The training loss of random labelings, the slowest, is
    below 0.01 after 70, 150 and 300 steps with 50, 500 and 2,000 images of CIFAR-100, and their
    agreement has then stopped changing.
    """
    return max(100, round(50 * (n_images / 50) ** 0.5))


@dataclass(frozen=True)
class Agreement:
    """What pairs of networks, trained on the same labeling, predict of held-out images.

    Pairs are disjoint: they are then independent given the images, and their spread is an honest
    standard error. All pairs of the same networks would share networks.

    Attributes:
        predictions: Which held-out images each network calls positive, bool
            [n_labelings, n_pairs, 2, n_held_out].
        random: The same for random labelings with as many positives; None if there are none.
    """

    predictions: np.ndarray
    random: "Agreement | None" = None

    @property
    def per_pair(self) -> np.ndarray:
        """Share of held-out images on which each pair agrees [n_labelings, n_pairs].

        The agreement score of Atanov et al. 2022, "Task Discovery: Finding the Tasks that Neural
        Networks Generalize on".
        """
        return self._agree.mean(axis=2)

    @property
    def mean(self) -> np.ndarray:
        """AS, the mean over the pairs, in [0, 1], [n_labelings]."""
        return self.per_pair.mean(axis=1)

    @property
    def sem(self) -> np.ndarray:
        """Standard error of `mean` over pairs and held-out images [n_labelings].

        The sum of both variances of a mean, for another draw would change the networks and the
        images; a little too large, for it holds their interaction twice (Owen 2007, "The pigeonhole
        bootstrap"). All labelings have the images in common: their differences are surer than that.
        """
        agree = self._agree
        variance = 0.0
        for values in (agree.mean(axis=2), agree.mean(axis=1)):  # of each pair, of each image
            n = values.shape[1]
            variance = variance + values.var(axis=1, ddof=min(1, n - 1)) / n
        return np.sqrt(variance)

    @property
    def positive(self) -> np.ndarray:
        """Share of held-out images that each network calls positive [n_labelings, n_pairs, 2]."""
        return self.predictions.mean(axis=3)

    @property
    def chance(self) -> np.ndarray:
        """Agreement of each pair if its networks predicted independently [n_labelings, n_pairs].

        p₁p₂ + (1 − p₁)(1 − p₂) with their shares of positives: two networks that call every image
        negative agree on all of them and have learnt nothing.
        """
        first, second = self.positive[..., 0], self.positive[..., 1]
        return first * second + (1 - first) * (1 - second)

    @property
    def kappa(self) -> np.ndarray:
        """Agreement beyond chance, in [-1, 1], mean over the pairs [n_labelings].

        (AS − chance) / (1 − chance) of each pair, and 0 where chance is 1: Cohen 1960, "A
        coefficient of agreement for nominal scales", eq. 1.
        """
        beyond, possible = self.per_pair - self.chance, 1 - self.chance
        per_pair = np.divide(beyond, possible, out=np.zeros_like(beyond), where=possible > 1e-12)
        return per_pair.mean(axis=1)

    def to_dict(self) -> dict[str, Any]:
        """All of it but the single predictions, for JSON."""
        rows = [
            {
                "labeling": i,
                "agreement": float(self.mean[i]),
                "sem": float(self.sem[i]),
                "chance": float(self.chance[i].mean()),
                "kappa": float(self.kappa[i]),
                "positive": self.positive[i].tolist(),
            }
            for i in range(len(self.predictions))
        ]
        random = self.random.to_dict()["labelings"] if self.random else []
        return {"n_held_out": self.predictions.shape[3], "labelings": rows, "random": random}

    @property
    def _agree(self) -> np.ndarray:
        return self.predictions[:, :, 0] == self.predictions[:, :, 1]


def agreement(
    images: ImageSet | np.ndarray,
    labelings: np.ndarray,
    held_out: ImageSet | np.ndarray,
    *,
    n_pairs: int = 5,
    n_steps: int = 0,
    n_random: int = 20,
    seed: int = 0,
    jobs: int = 0,
    device: str = "auto",
    cluster: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Agreement:
    """Agreement score of labelings by training pairs of LeNets on the whole image set.

    It needs no labels on the held-out images. Read it beside that of random labelings: networks of
    one architecture that know the same few images by heart agree on others far above chance,
    whatever the labels are.

    Args:
        images: An image set, or uint8 [n_images, H, W, C]; all of them are trained on.
        labelings: 0/1 [n_labelings, n_images], or one labeling [n_images].
        held_out: Other images of the same kind, such as `taskdisc.held_out` draws; standardised by
            the mean and deviation of `images`.
        n_pairs: Pairs of networks per labeling; no network is in two of them.
        n_steps: Steps of full-batch Adam; 0 for the size's own number, see `default_steps`.
        n_random: Random labelings beside, with as many positives, trained alike; 0 for none.
        seed: Decides initialisations and random labelings, whatever the number of jobs.
        jobs: Workers; 0 stands for one per core or GPU.
        device: `auto`, `cpu`, `cuda` or `cuda:<index>`.
        cluster: Address or file of a Dask scheduler, whose workers work instead; see `Cluster`.
        progress: Called with the number of labelings that were just done, of
            n_labelings + n_random.

    Raises:
        SettingError: an argument breaks its rule, or labelings that are held against random ones
            differ in their number of positives.
        ImageSetError: images of another type or shape, or more than fit in memory.
    """
    return measure(
        as_image_set(images),
        labelings,
        as_image_set(held_out),
        pool_for(jobs, device, cluster),
        n_pairs=n_pairs,
        n_steps=n_steps,
        n_random=n_random,
        seed=seed,
        progress=progress,
    )


def measure(
    image_set: ImageSet,
    labelings: np.ndarray,
    held_out: ImageSet,
    pool: Pool,
    *,
    n_pairs: int,
    n_steps: int,
    n_random: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> Agreement:
    """`agreement` over a pool that is there already."""
    from taskdisc.taskness.lenet import SIDE

    for name, value, least in (
        ("n_pairs", n_pairs, 1),
        ("n_steps", n_steps, 0),
        ("n_random", n_random, 0),
        ("seed", seed, 0),
    ):
        if value < least:
            raise SettingError(f"`{name}` must be at least {least}, got {value}.")
    labelings = check_labelings(labelings, len(image_set))
    image_set, held_out = image_set.resized(SIDE), held_out.resized(SIDE)
    n_common = len(set(image_set.hashes()) & set(held_out.hashes()))
    if n_common:
        raise SettingError(
            f"`held_out` must hold no image that is trained on, got {n_common} of them; "
            "draw it with taskdisc.held_out."
        )
    check_memory(len(image_set) + len(held_out), pool)
    n_given = len(labelings)
    if n_random:
        check_positives(labelings)
        rng = np.random.default_rng([seed, _STREAM])
        n_pos = int(labelings[0].sum())
        random = random_labelings(n_random, len(image_set), n_pos, rng)
        labelings = np.concatenate([labelings, random])
    content = (image_set.content_hash(), held_out.content_hash())
    group = max(1, (POPULATION if pool.on_cpu else GPU_POPULATION) // (2 * n_pairs))
    work = [
        _Work(
            np.asarray(image_set.images),
            np.asarray(held_out.images),
            content,
            part,
            n_pairs,
            n_steps or default_steps(len(image_set)),
            seed,
        )
        for part in np.split(labelings, range(group, len(labelings), group))
    ]
    parts = []
    for predictions in pool.map(_predict_group, work):
        parts.append(predictions)
        if progress:
            progress(len(predictions))
    predicted = np.concatenate(parts)
    beside = Agreement(predicted[n_given:]) if n_random else None
    return Agreement(predicted[:n_given], beside)


@dataclass(frozen=True)
class _Work:
    """One unit of work for the pool: some labelings of an image set, and the held-out images."""

    images: np.ndarray
    held_out: np.ndarray
    content: tuple[str, str]  # names both, so that a worker lays them out once
    labelings: np.ndarray
    n_pairs: int
    n_steps: int
    seed: int


def _predict_group(work: _Work, device: str) -> np.ndarray:
    """Train the pairs of the labelings, population by population, and predict held-out images."""
    import torch

    from taskdisc.taskness.lenet import initial_parameters
    from taskdisc.taskness.population import fit, positive_probability

    patches, held_out = _laid_out(work, device)
    n_networks = 2 * work.n_pairs
    seeds = np.concatenate(
        [initialisations(labeling, n_networks, work.seed) for labeling in work.labelings]
    )
    labels = torch.from_numpy(np.repeat(work.labelings, n_networks, axis=0))
    population = population_size(device, len(work.images))
    predictions = []
    for start in range(0, len(seeds), population):
        part = slice(start, start + population)
        targets = labels[part].to(device)
        weights = torch.full(targets.shape, 1 / len(work.images), device=device)
        parameters = initial_parameters(seeds[part]).to(device)
        _, trained = fit(patches, targets, weights, parameters, n_steps=work.n_steps)
        predictions.append((positive_probability(held_out, trained) > 0.5).cpu().numpy())
    shape = (len(work.labelings), work.n_pairs, 2, len(work.held_out))
    return np.concatenate(predictions).reshape(shape)


def initialisations(labeling: np.ndarray, n_networks: int, seed: int) -> np.ndarray:
    """Initialisation seeds [n_networks] of a labeling's networks, the pairs one after another.

    From `seed` and the labeling itself, never from the company in which it is scored. In common,
    they would move all random labelings up or down together.
    """
    sequence = np.random.SeedSequence([seed, _STREAM, int(key(labeling), 16)])
    return sequence.generate_state(n_networks).astype(np.int64)


_laid_out_of_worker: dict[tuple[tuple[str, str], str], Any] = {}


def _laid_out(work: _Work, device: str) -> Any:
    """The patches of the image set and of the held-out images: laid out once per worker."""
    from taskdisc.taskness.convolutions import lay_out
    from taskdisc.taskness.lenet import standardised

    name = (work.content, device)
    if name not in _laid_out_of_worker:
        _laid_out_of_worker.clear()  # one image set at a time, so that memory stays bounded
        patches = lay_out(standardised(work.images).to(device))
        others = standardised(work.held_out, like=work.images).to(device)
        # In chunks of the same size, so that predicting needs no more memory than training.
        _laid_out_of_worker[name] = patches, lay_out(others, patches.chunk)
    return _laid_out_of_worker[name]
