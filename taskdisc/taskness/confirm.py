"""Is a found labeling no accident? Fresh splits, against random labelings scored alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from taskdisc.cluster import pool_for
from taskdisc.errors import RunFolderError, SettingError
from taskdisc.images import ImageSet, as_image_set
from taskdisc.json_text import finite
from taskdisc.labelings import check_labelings, random_labelings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.taskness.protocol import Protocol, protocol_from
from taskdisc.taskness.score import TrainedScorer

LEVEL = 0.05
"""Share of random labelings above the threshold T_task, and the largest adjusted p of a task."""


@dataclass(frozen=True)
class Confirmation:
    """Evidence for some labelings of one image set and ratio.

    Attributes:
        per_split: Taskness of every fresh split [n_labelings, n_splits].
        random: Taskness of the random labelings [n_random], each a mean over its own splits.
        validation: Mean validation cross-entropy [nats] after every step
            [n_labelings, n_steps + 1].
        training: The same on the train splits.
        baseline: Mean of both baselines [n_labelings].
    """

    per_split: np.ndarray
    random: np.ndarray
    validation: np.ndarray
    training: np.ndarray
    baseline: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Confirmed taskness [n_labelings]."""
        return self.per_split.mean(axis=1)

    @property
    def sem(self) -> np.ndarray:
        """Standard error of `mean` over the splits [n_labelings]."""
        return self.per_split.std(axis=1, ddof=1) / np.sqrt(self.per_split.shape[1])

    @property
    def threshold(self) -> float:
        """T_task: the 95 % quantile of the random labelings."""
        return float(np.quantile(self.random, 1 - LEVEL))

    @property
    def p(self) -> np.ndarray:
        """One-sided p against the random labelings [n_labelings]: (1 + number ≥ mean) / (1 + n).

        How often a random labeling does as well, whatever their distribution; never 0: Phipson &
        Smyth 2010, "Permutation p-values should never be zero", eq. 2. It asks whether a labeling
        is better than random ones, not whether a search over random ones could have found it.
        """
        above = (self.random[None] >= self.mean[:, None]).sum(axis=1)
        return (1 + above) / (1 + len(self.random))

    @property
    def p_adjusted(self) -> np.ndarray:
        """`p` corrected over the labelings [n_labelings]: Benjamini & Hochberg 1995."""
        from scipy.stats import false_discovery_control

        return np.asarray(false_discovery_control(self.p, method="bh"))

    @property
    def is_task(self) -> np.ndarray:
        """Whether each labeling is a task, bool [n_labelings]: above T_task, adjusted p ≤ 5 %."""
        return (self.mean > self.threshold) & (self.p_adjusted <= LEVEL)


def confirm(
    images: ImageSet | np.ndarray,
    labelings: np.ndarray,
    *,
    n_splits: int = 64,
    n_random: int = 300,
    random_splits: int = 10,
    protocol: Protocol | str | dict[str, Any] = "stratified",
    seed: int = 0,
    jobs: int = 0,
    device: str = "auto",
    cluster: str | None = None,
    progress: Progress | None = None,
) -> Confirmation:
    """Score labelings on splits and initialisations of their own, and random labelings beside them.

    The random labelings have as many positives and are scored by the same protocol, each on splits
    of its own. They may get fewer splits, for it is their spread that counts; the noise which that
    leaves in each widens their distribution, which raises the threshold and p.

    Args:
        images: An image set, or uint8 [n_images, H, W, C].
        labelings: 0/1 [n_labelings, n_images], all with the same number of positives.
        n_splits: Fresh splits per labeling.
        n_random: Random labelings; the smallest possible p is 1 / (n_random + 1).
        random_splits: Splits per random labeling.
        protocol: As in `score`; its own number of splits is not used.
        seed: Decides splits, initialisations and random labelings. They are never those that
            `score` or `search` use with the same seed.
        jobs: Workers; 0 stands for one per core or GPU.
        device: `auto`, `cpu`, `cuda` or `cuda:<index>`.
        cluster: Address or file of a Dask scheduler, whose workers work instead; see `Cluster`.
        progress: Told what is going on.

    Raises:
        SettingError: an argument breaks its rule.
    """
    image_set = as_image_set(images)
    for name, value, least in (
        ("n_splits", n_splits, 2),
        ("n_random", n_random, 20),
        ("random_splits", random_splits, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise SettingError(f"`{name}` must be at least {least}, got {value}.")
    plan = ConfirmPlan(
        image_set,
        check_labelings(labelings, len(image_set)),
        protocol_from(protocol),
        n_splits=n_splits,
        n_random=n_random,
        random_splits=random_splits,
        seed=seed,
    )
    told = progress or Progress()
    told.start("confirm", plan.n_trainings, "trainings")
    confirmation = plan.run(pool_for(jobs, device, cluster), progress=told)
    told.finish()
    return confirmation


def check_positives(labelings: np.ndarray) -> None:
    """Refuse labelings [n_labelings, n_images] that differ in their number of positives.

    Raises:
        SettingError: they do, so the same random labelings cannot stand against all of them.
    """
    counts = sorted(set(labelings.sum(axis=1, dtype=int).tolist()))
    if len(counts) > 1:
        raise SettingError(
            "labelings that are held against the same random labelings must have the same number "
            f"of positives, got from {counts[0]} to {counts[-1]}."
        )


def t_task(random: Sequence[float] | np.ndarray) -> float:
    """T_task from few random labelings: what a further one exceeds in 5 % of all cases.

    The upper prediction limit of a normal sample, mean + t · s.d. · √(1 + 1/n), since the empirical
    95 % quantile of n = 20 lets through 9 %, of n = 5 even 19 %. See Hahn & Meeker 1991,
    "Statistical Intervals", section 4.7.

    Args:
        random: Taskness, or another measure, of at least two random labelings, scored alike.
    """
    from scipy.stats import t

    given = np.asarray(random, dtype=float)
    n = len(given)
    limit = t.ppf(1 - LEVEL, n - 1) * given.std(ddof=1) * (1 + 1 / n) ** 0.5
    return float(given.mean() + limit)


@dataclass(frozen=True)
class ConfirmPlan:
    """What `confirm` computes, so that a run can journal it and go on where it stopped."""

    image_set: ImageSet
    labelings: np.ndarray
    protocol: Protocol
    n_splits: int
    n_random: int
    random_splits: int
    seed: int

    def __post_init__(self) -> None:
        check_positives(self.labelings)

    def run(
        self,
        pool: Pool,
        done: Sequence[dict[str, Any]] = (),
        record: Callable[[list[dict[str, Any]]], None] = lambda lines: None,
        progress: Progress | None = None,
    ) -> Confirmation:
        """Compute what is not among the `done` lines, `record` each new one, and put all together.

        Args:
            pool: Where to train.
            done: Lines that an earlier call recorded.
            record: Called with every group of new lines.
            progress: Advanced by the number of trainings that became known, of `n_trainings`.
        """
        told = progress or Progress()
        lines = self._checked(done)
        for kind, labelings, n_splits, seed in self._parts():
            # Random labelings have splits of their own each: a seed in common would move all of
            # them, and with them the threshold, up or down together.
            common = self.protocol.common and kind == "task"
            protocol = replace(self.protocol, n_splits=n_splits, common=common)
            scorer = TrainedScorer(self.image_set, protocol, seed, pool)
            groups = [
                range(start, min(start + scorer.group, len(labelings)))
                for start in range(0, len(labelings), scorer.group)
            ]
            missing = [g for g in groups if any((kind, index) not in lines for index in g)]
            n_known = sum(len(g) for g in groups if g not in missing) * n_splits
            if n_known:
                told.advance(n_known, known=True)
            scored = scorer.score_groups([labelings[list(g)] for g in missing])
            for group, scores in zip(missing, scored, strict=True):
                new = [
                    {
                        "kind": kind,
                        "index": index,
                        "per_split": scores.per_split[i].tolist(),
                        "training": scores.training[i].mean(axis=0).tolist(),
                        "validation": scores.validation[i].mean(axis=0).tolist(),
                        "baseline": float(scores.baseline[i].mean()),
                    }
                    for i, index in enumerate(group)
                ]
                record([line for line in new if (kind, line["index"]) not in lines])
                lines.update({(kind, line["index"]): line for line in new})
                told.advance(len(group) * n_splits)

        def column(kind: str, n: int, name: str) -> np.ndarray:
            return np.array([lines[kind, index][name] for index in range(n)])

        n_labelings = len(self.labelings)
        return Confirmation(
            per_split=column("task", n_labelings, "per_split"),
            random=column("random", self.n_random, "per_split").mean(axis=1),
            validation=column("task", n_labelings, "validation"),
            training=column("task", n_labelings, "training"),
            baseline=column("task", n_labelings, "baseline"),
        )

    def _checked(self, done: Sequence[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
        """Recorded lines by kind and index.

        Raises:
            RunFolderError: one is not as `run` records it.
        """
        wanted = {kind: (len(rows), n_splits) for kind, rows, n_splits, _ in self._parts()}
        n_losses = self.protocol.steps(len(self.image_set)) + 1
        lines = {}
        try:
            for line in done:
                kind, index = line["kind"], line["index"]
                n_rows, n_splits = wanted[kind]
                if type(index) is not int or not 0 <= index < n_rows:
                    raise ValueError("it is of a labeling that is not there")
                if len([finite(value) for value in line["per_split"]]) != n_splits:
                    raise ValueError("it is of another number of splits")
                finite(line["baseline"])
                finite(line.get("seconds", 0))
                for name in ("training", "validation"):
                    if len([finite(value) for value in line[name]]) != n_losses:
                        raise ValueError("it is of another number of steps")
                lines[kind, index] = line
        except (LookupError, TypeError, ValueError) as error:
            raise RunFolderError(
                "every line of the run folder's confirm.jsonl must be a measurement of one of its "
                f"labelings, but one is not ({error}); the file was damaged or is another run's: "
                "start a new run in another folder."
            ) from error
        return lines

    @property
    def n_trainings(self) -> int:
        """Trainings of the whole plan."""
        return len(self.labelings) * self.n_splits + self.n_random * self.random_splits

    def _parts(self) -> list[tuple[str, np.ndarray, int, int]]:
        """Kind, labelings, splits and seed of both sides, with streams that no search uses."""
        stream = np.random.SeedSequence([self.seed, 0x636F6E6669726D])  # "confirm"
        seeds = stream.generate_state(2, dtype=np.uint64)
        rng = np.random.default_rng(stream.spawn(1)[0])
        n_pos = int(self.labelings[0].sum())
        random = random_labelings(self.n_random, len(self.image_set), n_pos, rng)
        return [
            ("task", self.labelings, self.n_splits, int(seeds[0])),
            ("random", random, self.random_splits, int(seeds[1])),
        ]
