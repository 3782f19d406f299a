"""Taskness: how much better than blind a network generalises on a labeling."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from taskdisc.cluster import pool_for
from taskdisc.errors import ImageSetError, SettingError
from taskdisc.images import ImageSet, as_image_set
from taskdisc.labelings import check_labelings, key
from taskdisc.pool import Pool
from taskdisc.taskness.protocol import (
    WINDOW,
    Protocol,
    n_repeats,
    protocol_from,
    validation_masks,
)

if TYPE_CHECKING:
    from torch import Tensor

    from taskdisc.taskness.convolutions import Patches

POPULATION = 5
"""Networks trained at once on a CPU; more do not fit the cache, fewer waste products."""

GPU_POPULATION = 640
"""Networks trained at once on a GPU at most."""

GPU_BYTES_PER_IMAGE = 80_000
"""Memory of the activations and gradients of one image in one network."""

BYTES_PER_IMAGE = 500_000
"""Memory that laying one image out for training takes at its peak."""

DIVERGED = 100.0
"""Largest cross-entropy [nats] that counts: what a training that diverged is given."""


@dataclass(frozen=True)
class Scores:
    """What a protocol measured of some labelings.

    Attributes:
        per_split: (b − g) / b of every split [n_labelings, n_splits]; 0 = no better than blind,
            1 = solved, negative = worse than blind.
        baseline: b, the mean of both baselines' validation cross-entropy [n_labelings, n_splits].
        training: Cross-entropy [nats] on the train split after every step
            [n_labelings, n_splits, n_steps + 1].
        validation: The same on the validation split.
    """

    per_split: np.ndarray
    baseline: np.ndarray
    training: np.ndarray
    validation: np.ndarray

    @property
    def taskness(self) -> np.ndarray:
        """Mean over the splits [n_labelings]."""
        return self.per_split.mean(axis=1)

    @property
    def sem(self) -> np.ndarray:
        """Standard error of `taskness` over the splits [n_labelings]; 0 for a single split."""
        n_splits = self.per_split.shape[1]
        return self.per_split.std(axis=1, ddof=min(1, n_splits - 1)) / np.sqrt(n_splits)


def score(
    images: ImageSet | np.ndarray,
    labelings: np.ndarray,
    *,
    protocol: Protocol | str | dict[str, Any] = "stratified",
    seed: int = 0,
    jobs: int = 0,
    device: str = "auto",
    cluster: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Taskness of labelings by training LeNets on them.

    Args:
        images: An image set, or uint8 [n_images, H, W, C]; resized to 32x32.
        labelings: 0/1 [n_labelings, n_images], or one labeling [n_images].
        protocol: A name in `PROTOCOLS`, `{"name": …, field: value}`, or a `Protocol`.
        seed: Decides splits and initialisations; the same seed gives the same scores for any
            number of jobs.
        jobs: Workers; 0 stands for one per core or GPU.
        device: `auto`, `cpu`, `cuda` or `cuda:<index>`.
        cluster: Address or file of a Dask scheduler, whose workers work instead; see `Cluster`.
        progress: Called with the number of labelings that were just scored.

    Raises:
        SettingError: labelings, protocol, seed, jobs or device break their rules.
        ImageSetError: images of another type or shape, or too few to split.
    """
    image_set = as_image_set(images)
    if seed < 0:
        raise SettingError(f"`seed` must be 0 or more, got {seed}.")
    labelings = check_labelings(labelings, len(image_set))
    scorer = TrainedScorer(
        image_set, protocol_from(protocol), seed, pool_for(jobs, device, cluster)
    )
    parts = []
    for part in scorer.score(labelings):
        parts.append(part)
        if progress:
            progress(len(part.per_split))
    return concatenated(parts)


@dataclass(frozen=True)
class _Work:
    """One unit of work for the pool: some labelings of an image set."""

    images: np.ndarray
    content: str  # names the image set, so that a worker lays it out once
    labelings: np.ndarray
    protocol: Protocol
    seed: int


class TrainedScorer:
    """Scores labelings of one image set by one protocol and seed, in groups, over a pool."""

    def __init__(self, image_set: ImageSet, protocol: Protocol, seed: int, pool: Pool) -> None:
        check_scorable(len(image_set), protocol, pool)
        from taskdisc.taskness.lenet import SIDE

        self._protocol = protocol
        self._pool = pool
        small = image_set.resized(SIDE)
        self._parts = [
            (positions, _Work(np.asarray(part.images), part.content_hash(), _NONE, p, part_seed))
            for positions, p, part_seed in _parts(protocol, len(image_set), seed)
            for part in [small.take(positions)]
        ]

    @property
    def group(self) -> int:
        """Labelings scored together: fill one population. The same for any number of jobs."""
        population = POPULATION if self._pool.on_cpu else GPU_POPULATION
        return max(1, population // self._protocol.n_splits)

    def score(self, labelings: np.ndarray) -> Iterator[Scores]:
        """Scores of consecutive groups of `group` labelings [n_labelings, n_images], in order."""
        groups = np.split(labelings, range(self.group, len(labelings), self.group))
        return self.score_groups(groups)

    def score_groups(self, groups: list[np.ndarray]) -> Iterator[Scores]:
        """Scores of each group of labelings, in order."""
        work = [
            replace(part, labelings=group[:, positions])
            for group in groups
            for positions, part in self._parts
        ]
        scores = self._pool.map(_score_group, work)
        for _ in groups:
            yield concatenated([next(scores) for _ in self._parts], axis=1)


_NONE = np.empty((0, 0), dtype=np.uint8)


def _parts(protocol: Protocol, n_images: int, seed: int) -> list[tuple[np.ndarray, Protocol, int]]:
    """Positions of the images that train and validate together, with the splits and seed of each.

    One part of all images, or, where the protocol takes fewer, one for each repeat of its splits.
    """
    n_used = protocol.images(n_images)
    if n_used == n_images:
        return [(np.arange(n_images), protocol, seed)]
    n_parts = n_repeats(protocol)
    drawn = np.random.SeedSequence([seed, n_images]).spawn(n_parts)
    sizes = [len(part) for part in np.array_split(np.arange(protocol.n_splits), n_parts)]
    return [
        (
            np.sort(np.random.default_rng(child).permutation(n_images)[:n_used]),
            replace(protocol, n_splits=n_splits),
            int(child.generate_state(1)[0]),
        )
        for child, n_splits in zip(drawn, sizes, strict=True)
    ]


def check_scorable(n_images: int, protocol: Protocol, pool: Pool) -> None:
    """Refuse an image set that cannot be scored here.

    Raises:
        ImageSetError: fewer images than folds, or more than fit the memory of this machine.
    """
    if n_images < protocol.n_folds:
        raise ImageSetError(
            f"`protocol.n_folds` must be at most the number of images, {n_images} here, "
            f"got {protocol.n_folds}."
        )
    check_memory(protocol.images(n_images), pool)


def check_memory(n_images: int, pool: Pool) -> None:
    """Refuse more images than fit the memory of this machine.

    Raises:
        ImageSetError: they do not, where each CPU worker lays them out for itself.
    """
    if pool.on_cpu:
        what = f"laying {n_images} images out for {pool.local_jobs} workers"
        check_fits(n_images * BYTES_PER_IMAGE * pool.local_jobs, what)


def check_fits(needed: int, what: str) -> None:
    """Refuse what would not fit the memory of this machine.

    Args:
        needed: Bytes.
        what: What needs them.

    Raises:
        ImageSetError: they are more than four fifths of what is installed.
    """
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > 0.8 * installed:
        raise ImageSetError(
            f"the image set must fit in memory, but {what} needs {needed / 1e9:.0f} GB and this "
            f"machine has {installed / 1e9:.0f} GB; select fewer with `images.n_images`, or use "
            "fewer jobs or a lower `closed_form.rank`."
        )


def concatenated(parts: list[Scores], axis: int = 0) -> Scores:
    """The scores of several groups (axis 0) or parts of the splits (axis 1) as those of one."""
    return Scores(
        *(
            np.concatenate([getattr(part, name) for part in parts], axis=axis)
            for name in ("per_split", "baseline", "training", "validation")
        )
    )


def read_out(curves: np.ndarray) -> np.ndarray:
    """g: the minimum over training of curves [..., n_steps + 1] after a rolling median of 5."""
    windows = np.lib.stride_tricks.sliding_window_view(curves, WINDOW, axis=-1)
    return np.median(windows, axis=-1).min(axis=-1)


@dataclass(frozen=True)
class Splits:
    """Every split of some labelings by a protocol: one network each, labeling by labeling.

    Attributes:
        labels: The network's labeling, 0/1 [n_models, n_images].
        validation: Which images validate, bool [n_models, n_images].
        seeds: Of the initialisations [n_models].
    """

    labels: np.ndarray
    validation: np.ndarray
    seeds: np.ndarray

    @property
    def train_share(self) -> np.ndarray:
        """Weight of each image in its network's training loss [n_models, n_images]."""
        return ~self.validation / (~self.validation).sum(axis=1, keepdims=True)

    @property
    def validation_share(self) -> np.ndarray:
        """The same on the validation split."""
        return self.validation / self.validation.sum(axis=1, keepdims=True)

    def part(self, start: int, stop: int) -> "Splits":
        """Those of the networks from `start` to before `stop`."""
        rows = slice(start, stop)
        return Splits(self.labels[rows], self.validation[rows], self.seeds[rows])


def all_splits(protocol: Protocol, labelings: np.ndarray, seed: int) -> Splits:
    """The splits of labelings [n_labelings, n_images], `protocol.n_splits` of each."""
    splits = [splits_of(protocol, labeling, seed) for labeling in labelings]
    return Splits(
        np.repeat(labelings, protocol.n_splits, axis=0),
        np.concatenate([validation for validation, _ in splits]),
        np.concatenate([initialisations for _, initialisations in splits]),
    )


def losses_of(
    patches: "Patches", splits: Splits, n_steps: int, lr: float, device: str
) -> "Iterator[Tensor]":
    """Train the networks of some splits, population by population.

    Args:
        patches: The images that labels are of, from `lay_out`, on the device.
        splits: What to train on.
        n_steps: Steps of Adam.
        lr: Learning rate of Adam.
        device: `cpu` or `cuda:<index>`.

    Yields:
        Cross-entropy [nats] of each image under its label, at most `DIVERGED`, of the next networks
        [n_steps + 1, n_models, n_images], row t after t steps.
    """
    import torch

    from taskdisc.taskness.lenet import initial_parameters
    from taskdisc.taskness.population import train

    parameters = initial_parameters(splits.seeds)
    population = population_size(device, patches.n_images)
    for start in range(0, len(splits.labels), population):
        part = slice(start, start + population)
        losses = train(
            patches,
            torch.from_numpy(splits.labels[part]).to(device),
            torch.from_numpy(splits.train_share[part]).float().to(device),
            parameters[part].to(device),
            n_steps=n_steps,
            lr=lr,
        )
        yield losses.nan_to_num(nan=DIVERGED).clamp_(max=DIVERGED)


def _score_group(work: _Work, device: str) -> Scores:
    """Train all splits of the labelings and read the curves out."""
    from taskdisc.taskness.population import laid_out

    protocol = work.protocol
    patches = laid_out(work.images, work.content, device)
    splits = all_splits(protocol, work.labelings, work.seed)
    n_steps = protocol.steps(len(work.images))
    curves, done = [], 0
    for losses in losses_of(patches, splits, n_steps, protocol.lr, device):
        part = splits.part(done, done + losses.shape[1])
        curves.append(mean_losses(losses, part))
        done += len(part.labels)
    return scores_from(np.concatenate(curves, axis=1), splits, protocol, n_steps)


def mean_losses(losses: "Tensor", splits: Splits) -> np.ndarray:
    """Mean cross-entropy [nats] of train and validation split, [2, n_models, n_steps + 1].

    Args:
        losses: Of each image [n_steps + 1, n_models, n_images], see `losses_of`.
        splits: Those of the same networks.
    """
    import torch

    shares = (splits.train_share, splits.validation_share)
    means = [
        (losses * torch.from_numpy(share).float().to(losses.device)).sum(2) for share in shares
    ]
    return torch.stack(means).transpose(1, 2).cpu().numpy()


def scores_from(curves: np.ndarray, splits: Splits, protocol: Protocol, n_steps: int) -> Scores:
    """The scores that `mean_losses` of all splits [2, n_models, n_steps + 1] come to."""
    from taskdisc.taskness.baselines import blind_curves, informed

    blind = blind_curves(splits.labels, splits.validation, splits.seeds, n_steps, protocol.lr)
    baseline = (informed(splits.labels, splits.validation) + read_out(blind)) / 2
    shape = (-1, protocol.n_splits, n_steps + 1)
    training, validating = (curve.reshape(shape) for curve in curves)
    b = baseline.reshape(shape[:2])
    g = read_out(validating)
    per_split = np.divide(b - g, b, out=np.zeros_like(b), where=_learnable(splits).reshape(b.shape))
    return Scores(per_split, b, training, validating)


def population_size(device: str, n_images: int) -> int:
    """Networks to train at once: what a core's cache holds, or half of a GPU's free memory."""
    import torch

    if device == "cpu":
        return POPULATION
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(GPU_POPULATION, free // (2 * n_images * GPU_BYTES_PER_IMAGE)))


def _learnable(splits: Splits) -> np.ndarray:
    """Splits whose train part holds both classes, bool [n_models].

    Where it does not there is nothing to learn, and the taskness of the split is 0 by definition;
    so is that of a constant labeling.
    """
    train = ~splits.validation
    positives = (train & (splits.labels == 1)).any(axis=1)
    negatives = (train & (splits.labels == 0)).any(axis=1)
    return positives & negatives


def splits_of(protocol: Protocol, labeling: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Validation masks [n_splits, n_images] and initialisation seeds [n_splits] of a labeling.

    Both come from `seed` and, unless the protocol has them in common for all labelings, from the
    labeling itself; never from the order in which labelings are scored.
    """
    own = [] if protocol.common else [int(key(labeling), 16)]
    order, initialisation = np.random.SeedSequence([seed, *own]).spawn(2)
    rngs = [np.random.default_rng(child) for child in order.spawn(n_repeats(protocol))]
    masks = validation_masks(protocol, labeling, rngs)
    return masks, initialisation.generate_state(protocol.n_splits).astype(np.int64)
