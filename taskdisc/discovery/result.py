"""What a search found: one object, from which every file, table and page of a run is made."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from taskdisc.config import SearchSettings
from taskdisc.discovery.classes import ClassMatch, best_class, recovered
from taskdisc.discovery.trials import Trial
from taskdisc.images import ImageSet
from taskdisc.taskness.confirm import Confirmation
from taskdisc.taskness.kernels import ridge_of

SCHEMA = 2
"""Version of `result.json`; a change that breaks a reader raises it."""


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search.

    Attributes:
        settings: What decided it.
        images: The images that were searched.
        trials: Every scored labeling, in order.
        candidates: Positions in `trials` of the labelings that were confirmed, in the order in
            which the search chose them.
        confirmation: Their evidence, in the same order.
        seconds: Wall time of the stages `search` and `confirm` [s], all sittings together.
    """

    settings: SearchSettings
    images: ImageSet
    trials: Sequence[Trial]
    candidates: list[int]
    confirmation: Confirmation
    seconds: dict[str, float]

    @property
    def labelings(self) -> np.ndarray:
        """The candidates uint8 [n_candidates, n_images], in the order of `to_dict()["tasks"]`."""
        return np.stack([self.trials[self.candidates[i]].labeling for i in self._order])

    @property
    def _order(self) -> list[int]:
        """Positions in `candidates`, best confirmed first."""
        return np.argsort(-self.confirmation.mean, kind="stable").tolist()

    def to_dict(self) -> dict[str, Any]:
        """What `result.json` holds: plain values only, best confirmed task first."""
        evidence = self.confirmation
        tasks = [
            {
                "positives": np.flatnonzero(self.trials[trial].labeling).tolist(),
                "trial": trial,
                "chosen": i,
                "seen": self.trials[trial].taskness,
                "confirmed": {
                    "mean": float(evidence.mean[i]),
                    "sem": float(evidence.sem[i]),
                    "n_splits": evidence.per_split.shape[1],
                    "p": float(evidence.p[i]),
                    "p_adjusted": float(evidence.p_adjusted[i]),
                },
                "is_task": bool(evidence.is_task[i]),
                "known_classes": self._known_classes(self.trials[trial].labeling),
                "match": self._match(self.trials[trial].labeling),
            }
            for i, trial in ((i, self.candidates[i]) for i in self._order)
        ]
        return {
            "schema": SCHEMA,
            "source": self.images.source,
            "n_images": len(self.images),
            "ratio": self.settings.ratio,
            "seed": self.settings.seed,
            "proposer": self.settings.proposer,
            "scorer": self.settings.scorer,
            "closed_form": self._closed_form(),
            "protocol": asdict(self.settings.protocol),
            "budget": self.settings.budget,
            "trials": len(self.trials),
            "seconds": self.seconds,
            "threshold": evidence.threshold,
            "random": {
                "n": len(evidence.random),
                "n_splits": self.settings.confirm.random_splits,
                "mean": float(evidence.random.mean()),
                "sd": float(evidence.random.std(ddof=1)),
            },
            "tasks": tasks,
            "recovered": recovered(tasks, self.images),
        }

    def _closed_form(self) -> dict[str, Any] | None:
        """Which closed form the search asked, and how that agrees with trained taskness."""
        if not self.settings.uses_closed_form:
            return None
        closed_form = self.settings.closed_form
        measured = closed_form.measured
        return {
            **closed_form.model_dump(),
            "ridge": closed_form.ridge or ridge_of(closed_form.kernel, closed_form.features),
            "measured": asdict(measured) if measured else None,
        }

    def _match(self, labeling: np.ndarray) -> dict[str, ClassMatch]:
        """The class that matches best, by target."""
        return {
            target: best_class(labeling, numbers, self.images.classes[target])
            for target, numbers in self.images.targets.items()
        }

    def _known_classes(self, labeling: np.ndarray) -> dict[str, dict[str, int]]:
        """How many positives each known class has, by target, most first; no search sees this."""
        counts = {}
        for target, labels in self.images.targets.items():
            numbers, n = np.unique(labels[labeling == 1], return_counts=True)
            names = [self.images.classes[target][number] for number in numbers]
            ordered = sorted(zip(names, n.tolist(), strict=True), key=lambda pair: -pair[1])
            counts[target] = dict(ordered)
        return counts

    def task_arrays(self) -> dict[str, np.ndarray]:
        """What `tasks.npz` holds: the labelings that are tasks, best first, and their evidence."""
        evidence = self.confirmation
        kept = [i for i in self._order if evidence.is_task[i]]
        return {
            # [0, n_images] where there is none
            "labelings": np.array(
                [self.trials[self.candidates[i]].labeling for i in kept], dtype=np.uint8
            ).reshape(len(kept), len(self.images)),
            "indices": self.images.indices,
            "hashes": np.array(self.images.hashes()),
            "taskness": evidence.mean[kept],
            "sem": evidence.sem[kept],
            "p_adjusted": evidence.p_adjusted[kept],
        }
