"""Propagation: labelings of a few images, predicted on many others by an ensemble, or left open."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from taskdisc.cluster import pool_for
from taskdisc.errors import SettingError
from taskdisc.images import ImageSet, as_image_set
from taskdisc.labelings import check_labelings, key, random_labelings
from taskdisc.taskness.agreement import Agreement, default_steps
from taskdisc.taskness.confirm import t_task
from taskdisc.taskness.protocol import SPLITTERS, Protocol, n_repeats, validation_masks
from taskdisc.taskness.score import GPU_POPULATION, check_memory, population_size

ABSTAINED = -1
"""The label of an image that gets none."""

MOST_FOLDS = 5
"""Folds that labelled images are dealt into; fewer where half of an ensemble has fewer members."""

LEAST_OF_EACH = 3
"""Images with a yes and with a no that a labeling must have: fewer calibrate nothing."""

LEAST_RANDOM = 3
"""Random labelings from which the limit of kappa can be told."""

BINS = 10
"""Bins of equally many images in which confidence is held against what was right."""

_TOGETHER = 4  # labelings in a unit of work on a CPU, for which other images are laid out once
_BATCH = 500  # other images laid out at a time, 0.2 GB
_LARGEST_LOGIT_AT = 1e-6  # distance to a probability of 0 or 1 at which a logit stops growing
_STREAM = 0x70726F70  # "prop": random numbers that nothing else uses


@dataclass(frozen=True)
class Propagation:
    """What ensembles, each trained on one labeling of some images, say of other images.

    Attributes:
        labelings: What they were trained on, uint8 [n_labelings, n_images].
        labels: 1 or 0 for each other image, −1 where they abstained, int8 [n_labelings, n_others].
        probability: Calibrated probability of a 1, float32 [n_labelings, n_others].
        out_of_fold: The same for the labelled images, by networks and a calibration that never saw
            the image [n_labelings, n_images].
        agreement: Between the labels of the two halves of each ensemble, one pair, on the other
            images.
        expected_kappa: The same of labels drawn by the probabilities of the halves, see
            `expected_kappa` [n_labelings].
        random: Random labelings propagated alike, `n_random` for each labeling, with its number of
            positives: their `agreement.mean`, `agreement.kappa` and `expected_kappa`, each
            [n_labelings, n_random].
    """

    labelings: np.ndarray
    labels: np.ndarray
    probability: np.ndarray
    out_of_fold: np.ndarray
    agreement: Agreement
    expected_kappa: np.ndarray
    random: dict[str, np.ndarray]

    @property
    def limit(self) -> np.ndarray:
        """What the expected kappa of a random labeling hardly exceeds [n_labelings].

        The highest of those that there are, or what a further one exceeds in 5 % of all cases if
        that is more: most are near 0 and few are not.
        """
        random = self.random["expected_kappa"]
        return np.maximum([t_task(kappa) for kappa in random], random.max(axis=1))

    @property
    def sensible(self) -> np.ndarray:
        """Whether propagating makes sense: expected kappa above `limit`, bool [n_labelings]."""
        return self.expected_kappa > self.limit

    @property
    def calibration_error(self) -> np.ndarray:
        """Expected calibration error of `out_of_fold`, in [0, 1], [n_labelings]."""
        pairs = zip(self.out_of_fold, self.labelings, strict=True)
        return np.array([calibration_error(p, labels) for p, labels in pairs])

    @property
    def calibration_by_chance(self) -> np.ndarray:
        """The calibration error that as few labels would show if all was right [n_labelings].

        The mean over 200 draws of labels from `out_of_fold`.
        """
        return np.array([_by_chance(p) for p in self.out_of_fold])

    @property
    def known_right(self) -> np.ndarray:
        """Share of labelled images whose label the more probable is, out of fold [n_labelings]."""
        return ((self.out_of_fold > 0.5) == self.labelings).mean(axis=1)

    @property
    def labelled(self) -> np.ndarray:
        """Share of the other images that got a label [n_labelings]."""
        return (self.labels != ABSTAINED).mean(axis=1)

    @property
    def yes(self) -> np.ndarray:
        """Share of 1 among the labels that were given [n_labelings]; NaN where none were."""
        n = (self.labels != ABSTAINED).sum(axis=1)
        n_yes = (self.labels == 1).sum(axis=1)
        return np.divide(n_yes, n, out=np.full(len(n), np.nan), where=n > 0)

    def to_dict(self) -> list[dict[str, Any]]:
        """The evidence of each labeling, for JSON."""
        columns = {
            "agreement": self.agreement.mean,
            "agreement_sem": self.agreement.sem,
            "kappa": self.agreement.kappa,
            "expected_kappa": self.expected_kappa,
            **{f"random_{name}": values.mean(axis=1) for name, values in self.random.items()},
            "limit": self.limit,
            "sensible": self.sensible,
            "calibration_error": self.calibration_error,
            "calibration_by_chance": self.calibration_by_chance,
            "known_right": self.known_right,
            "labelled": self.labelled,
            "yes": self.yes,
            "yes_known": self.labelings.mean(axis=1),
        }
        rows = zip(*(np.asarray(column).tolist() for column in columns.values()), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows]


def propagate(
    images: ImageSet | np.ndarray,
    labelings: np.ndarray,
    others: ImageSet | np.ndarray,
    *,
    n_members: int = 10,
    abstain: float = 0.2,
    n_random: int = 8,
    n_steps: int = 0,
    seed: int = 0,
    jobs: int = 0,
    device: str = "auto",
    cluster: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Propagation:
    """Predict labelings of some images on others, with calibrated confidence and abstentions.

    For each labeling an ensemble of LeNets is trained, every member from an initialisation of its
    own and on all but one of up to five stratified folds, which are dealt anew for each half of the
    ensemble. Each member stops where the loss of the fold that it left out is lowest. How soon that
    is depends on the labeling: with 500 images of CIFAR-100 after 5 to 25 steps for halves of the
    classes, which more training makes worse (area under the curve on other images 0.69 after 20
    steps, 0.65 after 158), with 100 digits after 50 to 200 for a digit.

    The mean logit of the members that left an image out, over the labelled images, is what
    probabilities are calibrated on: a logistic curve by Platt 1999, "Probabilistic outputs for
    support vector machines", with his targets, which keep it finite where the classes part. A curve
    that falls is replaced by the share of positives: it knows nothing. On the other images all
    members count, which are surer than the few of a fold, so that confidence is rather too low.
    `out_of_fold` holds the probabilities by curves that were fitted without the image. Only the
    step at which a member stopped was chosen by the fold that it is judged on.

    The more probable label is given, except to the share of images of lowest confidence; of equally
    sure ones the first abstain.

    Whether all that makes sense is told by the two halves of the ensemble, which have nothing in
    common but the labels and are calibrated each by its own folds: do they say the same? Labels by
    halves that know little hang on the calibration's luck, and those of random labelings agree on
    none or on a third. So it is their probabilities that are compared, by `expected_kappa`: on
    digits 0.35 to 0.48 for five digits against five, at most 0.003 for random labelings; with 500
    images of CIFAR-100 0.04 and 0.06 for halves of the coarse classes against at most 0.001.

    Args:
        images: The labelled images, or uint8 [n_images, H, W, C].
        labelings: 0/1 [n_labelings, n_images], or one labeling [n_images].
        others: Other images of the same kind; standardised as `images` are.
        n_members: Networks per labeling, an even number.
        abstain: Share of the other images that get no label, in [0, 1).
        n_random: Random labelings beside, for each number of positives that there is.
        n_steps: Steps of full-batch Adam at most; 0 for the size's own number, see
            `agreement.default_steps`.
        seed: Decides folds, initialisations and random labelings, whatever the number of jobs.
        jobs: Workers; 0 stands for one per core or GPU.
        device: `auto`, `cpu`, `cuda` or `cuda:<index>`.
        cluster: Address or file of a Dask scheduler, whose workers work instead; see `Cluster`.
        progress: Called with the number of labelings that were just done, of `n_trained`.

    Raises:
        SettingError: an argument breaks its rule.
        ImageSetError: images of another type or shape, or more than fit in memory.
    """
    from taskdisc.taskness.lenet import SIDE

    for name, value, least in (
        ("n_random", n_random, LEAST_RANDOM),
        ("n_steps", n_steps, 0),
        ("seed", seed, 0),
    ):
        if value < least:
            raise SettingError(f"`{name}` must be at least {least}, got {value}.")
    if n_members < 4 or n_members % 2:
        raise SettingError(
            "`n_members` must be an even number of at least 4, for the halves of the ensemble are "
            f"compared, got {n_members}; --members says how many."
        )
    if not 0 <= abstain < 1:
        raise SettingError(f"`abstain` must be at least 0 and below 1, got {abstain:g}.")
    pool = pool_for(jobs, device, cluster)
    image_set, other_set = as_image_set(images).resized(SIDE), as_image_set(others).resized(SIDE)
    labelings = check_labelings(labelings, len(image_set))
    _check_both_labels(labelings)
    n_common = len(set(image_set.hashes()) & set(other_set.hashes()))
    if n_common:
        raise SettingError(
            f"`others` must hold no image that is labelled, got {n_common} of them; leave them out."
        )
    check_memory(len(image_set) + _BATCH, pool)
    random = _random(labelings, n_random, seed)
    everything = np.concatenate([labelings, *random.values()])
    on_cpu = pool.on_cpu
    group = _TOGETHER if on_cpu else max(1, GPU_POPULATION // n_members)
    work = _Work(
        np.asarray(image_set.images),
        np.asarray(other_set.images),
        image_set.content_hash(),
        everything,
        n_members,
        n_steps or default_steps(len(image_set)),
        seed,
    )
    parts = [
        replace(work, labelings=part)
        for part in np.split(everything, range(group, len(everything), group))
    ]
    done = []
    for some in pool.map(_train_group, parts):
        done += some
        if progress:
            progress(len(some))
    halves = np.stack(
        [
            [calibrated(own, labels, logits) for own, logits in zip(*pair, strict=True)]
            for labels, pair in zip(everything, done, strict=True)
        ]
    )
    agreement = Agreement(halves[:, None] > 0.5)
    measured = {
        "agreement": agreement.mean,
        "kappa": agreement.kappa,
        "expected_kappa": expected_kappa(halves[:, 0], halves[:, 1]),
    }
    first = {n_pos: len(labelings) + n_random * i for i, n_pos in enumerate(random)}
    beside = np.array([first[int(labels.sum())] for labels in labelings])[:, None]
    beside = beside + np.arange(n_random)
    known = [own.mean(axis=0) for own, _ in done]
    probability = np.stack(
        [
            calibrated(own, labels, logits.mean(axis=0))
            for own, labels, (_, logits) in zip(known, labelings, done, strict=False)
        ]
    ).astype(np.float32)
    return Propagation(
        labelings,
        given_labels(probability, abstain),
        probability,
        np.stack([_out_of_fold(*row, seed) for row in zip(known, labelings, strict=False)]),
        Agreement(agreement.predictions[: len(labelings)]),
        measured["expected_kappa"][: len(labelings)],
        {name: values[beside] for name, values in measured.items()},
    )


def n_trained(labelings: np.ndarray, n_random: int = 8) -> int:
    """Labelings that `propagate` trains on: those given [n_labelings, n_images] and random ones."""
    return len(labelings) + n_random * len(set(labelings.sum(axis=1).tolist()))


def expected_kappa(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cohen's kappa to be expected of labels drawn by two probabilities of a 1, independently.

    (agreement − chance) / (1 − chance) with the agreement p·q + (1 − p)(1 − q), mean over images,
    and the chance of p and q that are means themselves; 0 where chance is 1. Cohen 1960, "A
    coefficient of agreement for nominal scales", eq. 1. Between labels that are sure it is kappa
    itself; where either side knows nothing of the images it is 0, whatever labels it would give.

    Args:
        first: Probabilities [..., n_images].
        second: The same of the other side.

    Returns:
        In [-1, 1], [...].
    """
    agree = (first * second + (1 - first) * (1 - second)).mean(axis=-1)
    p, q = first.mean(axis=-1), second.mean(axis=-1)
    chance = p * q + (1 - p) * (1 - q)
    possible = 1 - chance
    return np.divide(agree - chance, possible, out=np.zeros_like(agree), where=possible > 1e-12)


def given_labels(probability: np.ndarray, abstain: float) -> np.ndarray:
    """The more probable label of each image, −1 for the share `abstain` of least confidence.

    Args:
        probability: Of a 1 [n_labelings, n_images]; 1/2 is a 0.
        abstain: In [0, 1); of equally sure images the first abstain.

    Returns:
        int8 [n_labelings, n_images].
    """
    labels = (probability > 0.5).astype(np.int8)
    n_open = round(abstain * probability.shape[1])
    least_sure = np.argsort(np.abs(probability - 0.5), axis=1, kind="stable")[:, :n_open]
    np.put_along_axis(labels, least_sure, ABSTAINED, axis=1)
    return labels


def calibrated(known: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Probabilities of a 1 [n] that logits [n] stand for, by a logistic curve through known ones.

    Args:
        known: Logits [n_known] of images that their networks were not trained on.
        labels: 0/1 of these [n_known], both there.
        logits: Those to be calibrated.
    """
    from sklearn.linear_model import LogisticRegression

    n_pos = int(labels.sum())
    n_neg = len(labels) - n_pos
    # Platt's targets are no 0 and 1 but what one more image of each label would leave likely.
    target = np.where(labels == 1, (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2))
    scale = known.std() or 1.0
    x = np.tile(known / scale, 2)[:, None]
    curve = LogisticRegression(C=1e6, max_iter=1000)
    curve.fit(x, np.repeat([1, 0], len(labels)), np.concatenate([target, 1 - target]))
    if curve.coef_[0, 0] <= 0:
        return np.full(len(logits), n_pos / len(labels))
    return np.asarray(curve.predict_proba(logits[:, None] / scale)[:, 1])


def reliability(
    probability: np.ndarray, labels: np.ndarray, n_bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean probability, share of 1 and number of images of bins in order of probability [n_bins].

    Bins hold equally many images, so that none is nearly empty: Nguyen & O'Connor 2015, "Posterior
    calibration and exploratory analysis for natural language processing models", section 3.

    Args:
        probability: Of a 1 [n_images].
        labels: 0/1 [n_images].
        n_bins: At most; fewer where there are fewer images.
    """
    bins = np.array_split(np.argsort(probability, kind="stable"), min(n_bins, len(labels)))
    said = np.array([probability[part].mean() for part in bins])
    right = np.array([labels[part].mean() for part in bins])
    return said, right, np.array([len(part) for part in bins])


def calibration_error(probability: np.ndarray, labels: np.ndarray, n_bins: int = BINS) -> float:
    """Expected calibration error: how far probability and share of 1 are apart, mean over images.

    Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning", eq. 9,
    over the bins of `reliability`.
    """
    said, right, n = reliability(probability, labels, n_bins)
    return float((np.abs(said - right) * n).sum() / n.sum())


def _by_chance(probability: np.ndarray, n_draws: int = 200) -> float:
    rng = np.random.default_rng(_STREAM)
    draws = rng.random((n_draws, len(probability))) < probability
    return float(np.mean([calibration_error(probability, draw) for draw in draws]))


def _out_of_fold(known: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """The labelled images' own probabilities [n_images], each by a curve fitted without it."""
    deal = SPLITTERS["stratified"][0]
    probability = np.empty(len(labels))
    rng = np.random.default_rng([seed, _STREAM, int(key(labels), 16)])
    for left_out in deal(labels, MOST_FOLDS, rng):
        kept = ~left_out
        probability[left_out] = calibrated(known[kept], labels[kept], known[left_out])
    return probability


def _check_both_labels(labelings: np.ndarray) -> None:
    counts = labelings.sum(axis=1, dtype=int)
    few = np.minimum(counts, labelings.shape[1] - counts) < LEAST_OF_EACH
    if few.any():
        i = int(few.argmax())
        raise SettingError(
            f"every labeling must have at least {LEAST_OF_EACH} positives and negatives to be "
            f"propagated, got {counts[i]} positives of {labelings.shape[1]} images in labeling {i}."
        )


def _random(labelings: np.ndarray, n_random: int, seed: int) -> dict[int, np.ndarray]:
    """Random labelings [n_random, n_images] for each number of positives that there is."""
    n_images = labelings.shape[1]
    return {
        n_pos: random_labelings(
            n_random, n_images, n_pos, np.random.default_rng([seed, _STREAM, n_pos])
        )
        for n_pos in sorted(set(labelings.sum(axis=1, dtype=int).tolist()))
    }


@dataclass(frozen=True)
class _Work:
    """One unit of work for the pool: some labelings, their images, and the others."""

    images: np.ndarray
    others: np.ndarray
    content: str  # names the labelled images, so that a worker lays them out once
    labelings: np.ndarray
    n_members: int
    n_steps: int
    seed: int


def _train_group(work: _Work, device: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each labeling, by the halves of its ensemble: logits [2, n_images] and [2, n_others].

    The first by the members that left the image out.
    """
    import torch

    from taskdisc.taskness.convolutions import Patches, lay_out
    from taskdisc.taskness.lenet import initial_parameters, standardised
    from taskdisc.taskness.population import fit_early, laid_out, positive_probability

    n_members, n_images = work.n_members, len(work.images)
    drawn = [_members(labeling, n_members, work.seed) for labeling in work.labelings]
    left_out = np.concatenate([masks for masks, _ in drawn])
    seeds = np.concatenate([seeds for _, seeds in drawn])
    labels = torch.from_numpy(np.repeat(work.labelings, n_members, axis=0))
    patches = laid_out(work.images, work.content, device)

    def logits(of: Patches, parameters: torch.Tensor) -> np.ndarray:
        probability = positive_probability(of, parameters).nan_to_num(0.5)
        return torch.logit(probability, _LARGEST_LOGIT_AT).cpu().numpy()

    step = population_size(device, max(n_images, _BATCH))
    populations, known = [], []
    for start in range(0, len(seeds), step):
        part = slice(start, start + step)
        _, trained = fit_early(
            patches,
            labels[part].to(device),
            _shares(~left_out[part]).to(device),
            _shares(left_out[part]).to(device),
            initial_parameters(seeds[part]).to(device),
            n_steps=work.n_steps,
        )
        populations.append(trained)
        known.append(logits(patches, trained))
    # Laid out once for all networks; in chunks of the same size, so that it needs no more memory.
    batches = []
    for start in range(0, len(work.others), _BATCH):
        some = standardised(work.others[start : start + _BATCH], like=work.images).to(device)
        batch = lay_out(some, min(patches.chunk, len(some)))
        batches.append(np.concatenate([logits(batch, trained) for trained in populations]))
    n_labelings = len(work.labelings)
    counted = left_out.reshape(n_labelings, 2, -1, n_images)
    own = np.concatenate(known).reshape(counted.shape)
    own = (own * counted).sum(axis=2) / counted.sum(axis=2)
    spoken = np.concatenate(batches, axis=1).reshape(n_labelings, 2, -1, len(work.others))
    return list(zip(own, spoken.mean(axis=2), strict=True))


def _members(labeling: np.ndarray, n_members: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images that each member leaves out, bool [n_members, n_images], and its seed [n_members].

    The first half and then the second, each over all folds; from `seed` and the labeling itself.
    """
    half = n_members // 2
    protocol = Protocol(n_splits=half, n_folds=min(MOST_FOLDS, half), most_images=0)
    sequence = np.random.SeedSequence([seed, _STREAM, int(key(labeling), 16)])
    initialisations, *orders = sequence.spawn(1 + 2 * n_repeats(protocol))
    rngs = [np.random.default_rng(order) for order in orders]
    masks = [
        validation_masks(protocol, labeling, some)
        for some in (rngs[: len(rngs) // 2], rngs[len(rngs) // 2 :])
    ]
    return np.concatenate(masks), initialisations.generate_state(n_members).astype(np.int64)


def _shares(masks: np.ndarray) -> Any:
    """Weights [n_models, n_images] of a mean over the images of each mask, as a tensor."""
    import torch

    return torch.from_numpy(masks / masks.sum(axis=1, keepdims=True)).float()
