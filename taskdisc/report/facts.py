"""What a run folder says about its run: frozen facts, from which the page is drawn."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from taskdisc.config import SearchSettings
from taskdisc.discovery.classes import ClassMatch
from taskdisc.discovery.folder import (
    EVIDENCE,
    PICTURES,
    RESULT,
    TRIALS,
    folder_settings,
)
from taskdisc.discovery.result import SCHEMA
from taskdisc.discovery.trials import Trials
from taskdisc.errors import RunFolderError
from taskdisc.folder import CONFIG, ENVIRONMENT
from taskdisc.images import ImageSet
from taskdisc.journal import lines_of, read_journal
from taskdisc.json_text import finite, read_json
from taskdisc.labelings import best_different, evenly, from_hex, from_positives, key, read_arrays

MOST_POSITIVES, MOST_NEGATIVES = 60, 20
"""Images of a labeling that the report pictures; the gallery shows all that there are."""


@dataclass(frozen=True)
class Evidence:
    """What confirmation measured of one labeling.

    Attributes:
        mean: Confirmed taskness, a mean over `n_splits` fresh splits.
        sem: Its standard error.
        n_splits: Fresh splits.
        p: One-sided p against the random labelings.
        p_adjusted: The same, corrected over the labelings of the run.
        is_task: Above T_task, and the adjusted p is small enough.
        baseline: b, the mean of the baselines' validation cross-entropies [nats].
        training: Mean cross-entropy [nats] on the train splits after every step [n_steps + 1].
        validation: The same on the validation splits.
    """

    mean: float
    sem: float
    n_splits: int
    p: float
    p_adjusted: float
    is_task: bool
    baseline: float
    training: tuple[float, ...]
    validation: tuple[float, ...]

    @property
    def g(self) -> float:
        """The g [nats] that gives the confirmed taskness at b: b (1 − taskness).

        Each split is read at its own best step. Where all splits have the same b, as stratified
        ones do, this is the mean of their g; it lies below the minimum of the mean curve.
        """
        return self.baseline * (1 - self.mean)


@dataclass(frozen=True)
class Candidate:
    """A labeling that a search put forward.

    Attributes:
        number: 1 for the first of the page.
        trial: When it was scored, from 0.
        seen: The taskness that the search saw.
        positives: Positions of its positives in the image set, rising.
        key: The name of the task that it is, `labelings.key`.
        evidence: What confirmation measured; None where the run has not come so far.
        known_classes: How many positives each known class has, by target, most first.
        match: The class that it matches best, by target.
    """

    number: int
    trial: int
    seen: float
    positives: tuple[int, ...]
    key: str
    evidence: Evidence | None
    known_classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    match: Mapping[str, ClassMatch] = field(default_factory=dict)

    @property
    def is_task(self) -> bool:
        """Whether it was confirmed as a task."""
        return self.evidence is not None and self.evidence.is_task


@dataclass(frozen=True)
class Recovered:
    """How many classes of a target came back.

    Attributes:
        classes: Those that a task recovered.
        n_classes: Classes that the images are of.
        n_by_candidates: Classes that any candidate recovered, confirmed or not.
    """

    classes: tuple[str, ...]
    n_classes: int
    n_by_candidates: int


@dataclass(frozen=True)
class Null:
    """The random labelings that candidates are held against.

    Attributes:
        taskness: Of every random labeling, a mean over `n_splits` splits.
        n_splits: Splits of each.
        threshold: T_task.
    """

    taskness: tuple[float, ...]
    n_splits: int
    threshold: float


@dataclass(frozen=True, eq=False)
class Facts:
    """All that the page of a run shows.

    Attributes:
        folder: The run folder, as it was named.
        settings: What decided the run.
        n_images: Images searched.
        content: Their content hash.
        seen: Taskness that the search saw, of every trial in order.
        candidates: Tasks first, then what failed; best confirmed first. In an unfinished run: the
            best labelings seen so far.
        null: The random labelings; None in an unfinished run.
        recovered: How many classes came back, by target; none in an unfinished run.
        n_trainings: Trainings of the confirmation that are done, and that it takes in all.
        seconds: Wall time of the stages `search` and `confirm` so far [s].
        pictures: Position in the image set -> image uint8 [H, W, C], of some images.
        environment: Name and value of what the run was made with.
        command: The command that started it.
    """

    folder: Path
    settings: SearchSettings
    n_images: int
    content: str
    seen: tuple[float, ...]
    candidates: tuple[Candidate, ...]
    null: Null | None
    recovered: Mapping[str, Recovered]
    n_trainings: tuple[int, int]
    seconds: Mapping[str, float]
    pictures: Mapping[int, np.ndarray]
    environment: tuple[tuple[str, str], ...]
    command: str

    @property
    def name(self) -> str:
        """The name of the run folder."""
        return self.folder.resolve().name

    @property
    def is_finished(self) -> bool:
        """Whether everything was searched and confirmed."""
        return self.null is not None

    @property
    def n_positives(self) -> int:
        """Positives of every labeling."""
        return self.n_images // (self.settings.ratio + 1)

    @property
    def n_tasks(self) -> int:
        """Candidates that were confirmed as tasks."""
        return sum(candidate.is_task for candidate in self.candidates)

    @property
    def best_so_far(self) -> tuple[float, ...]:
        """The highest taskness seen up to each trial."""
        return tuple(np.maximum.accumulate(self.seen).tolist()) if self.seen else ()

    @property
    def resume_command(self) -> str:
        """The command that continues the run."""
        return f"taskdisc search --resume {shlex.quote(str(self.folder))}"

    @property
    def again_command(self) -> str:
        """The command that makes the same run in a folder of its own."""
        return f"taskdisc search {shlex.quote(str(self.folder / CONFIG))}"

    @property
    def configuration(self) -> tuple[tuple[str, str], ...]:
        """Path and value of every setting that has one."""
        return flat(self.settings.model_dump(mode="json"))

    def shown_positives(self, candidate: Candidate) -> tuple[int, ...]:
        """Up to `MOST_POSITIVES` positives that there are pictures of, evenly over the set."""
        positives = [i for i in candidate.positives if i in self.pictures]
        return tuple(evenly(positives, MOST_POSITIVES))

    def shown_negatives(self, candidate: Candidate) -> tuple[int, ...]:
        """Up to `MOST_NEGATIVES` negatives that there are pictures of, evenly over the set."""
        negatives = sorted(set(self.pictures) - set(candidate.positives))
        return tuple(evenly(negatives, MOST_NEGATIVES))


def read_facts(folder: Path) -> Facts:
    """The facts of a run from the files of its folder alone, finished or not.

    Raises:
        RunFolderError: no run folder, or one of its files is damaged.
    """
    settings = folder_settings(folder)
    with reading(folder / ENVIRONMENT):
        environment = read_json(folder / ENVIRONMENT)
        n_images = int(environment["images"]["n"])
        content = str(environment["images"]["content"])
        command = [str(part) for part in environment["command"]]
        told = {
            k: v
            for k, v in environment.items()
            if k not in ("schema", "made_by", "seed", "command")
        }
    with reading(folder / TRIALS):
        trials, search_s = Trials(n_images), 0.0
        for line in lines_of(folder / TRIALS):
            trials.add(from_hex(line["labeling"], n_images), finite(line["taskness"]))
            search_s += finite(line["seconds"])
    with reading(folder / EVIDENCE):
        evidence = read_journal(folder / EVIDENCE)
        confirm_s = sum(finite(line["seconds"]) for line in evidence)
        n_done = sum(len(line["per_split"]) for line in evidence)
    confirm = settings.confirm
    facts = Facts(
        folder=folder,
        settings=settings,
        n_images=n_images,
        content=content,
        seen=tuple(trials.taskness.tolist()),
        candidates=_put_forward(settings, trials),
        null=None,
        recovered={},
        n_trainings=(n_done, 0),
        seconds={"search": search_s, "confirm": confirm_s},
        pictures={},
        environment=flat(told),
        # The program's own path is this machine's affair.
        command=shlex.join([Path(command[0]).name, *command[1:]] if command else []),
    )
    if (folder / RESULT).exists():
        facts = _with_result(facts, evidence)
    n_all = len(facts.candidates) * confirm.n_splits + settings.n_random * confirm.random_splits
    return replace(facts, n_trainings=(n_done, n_all))


def _put_forward(settings: SearchSettings, trials: Trials) -> tuple[Candidate, ...]:
    """What the search would confirm if it stopped here, in the order of what it saw.

    But for labelings to stay away from, which may not be there any more.
    """
    return tuple(
        Candidate(
            number=number,
            trial=trial,
            seen=trials[trial].taskness,
            positives=tuple(np.flatnonzero(trials[trial].labeling).tolist()),
            key=key(trials[trial].labeling),
            evidence=None,
        )
        for number, trial in enumerate(
            best_different(
                trials.labelings, trials.best_first(), settings.tasks, settings.min_ablation
            ),
            start=1,
        )
    )


def _with_result(facts: Facts, evidence: Sequence[Mapping[str, Any]]) -> Facts:
    """The facts of a finished run: its result, the evidence for it and the pictures."""
    folder = facts.folder
    with reading(folder / RESULT):
        result = read_json(folder / RESULT)
        if result["schema"] != SCHEMA:
            raise RunFolderError(
                f"the `schema` of '{folder / RESULT}' must be {SCHEMA}, got {result['schema']!r}; "
                "make the page with the version of taskdisc that made the run."
            )
        # The journal numbers the candidates in the order in which the search chose them.
        tasks = sorted(result["tasks"], key=lambda task: int(task["chosen"]))
        threshold = finite(result["threshold"])
        seconds = {stage: finite(result["seconds"][stage]) for stage in facts.seconds}
        recovered = {
            target: Recovered(
                tuple(map(str, row["classes"])), int(row["n_classes"]), int(row["n_by_candidates"])
            )
            for target, row in result["recovered"].items()
        }
    with reading(folder / EVIDENCE):
        lines = {(line["kind"], line["index"]): line for line in evidence}
        candidates = [
            _confirmed(task, lines["task", index], facts.n_images)
            for index, task in enumerate(tasks)
        ]
        if any(not 0 <= candidate.trial < len(facts.seen) for candidate in candidates):
            raise ValueError("a labeling is of a trial that is not there")
        random = tuple(
            float(np.mean([finite(v) for v in lines["random", index]["per_split"]]))
            for index in range(result["random"]["n"])
        )
        n_splits = len(lines["random", 0]["per_split"])
    candidates.sort(key=lambda c: (not c.is_task, -_mean(c)))
    pictures: dict[int, np.ndarray] = {}
    if (folder / PICTURES).exists():  # all else can be shown without them
        with reading(folder / PICTURES):
            arrays = read_arrays(folder / PICTURES)
            shown = ImageSet("run", arrays["images"], indices=arrays["positions"])
            positions = shown.indices.tolist()
            if not set(positions) <= set(range(facts.n_images)):
                raise ValueError("pictures are not of images of the run")
            pictures = dict(zip(positions, shown.images, strict=True))
    return replace(
        facts,
        candidates=tuple(replace(c, number=i) for i, c in enumerate(candidates, start=1)),
        null=Null(random, n_splits, threshold),
        recovered=recovered,
        seconds=seconds,
        pictures=pictures,
    )


def _confirmed(task: Mapping[str, Any], line: Mapping[str, Any], n_images: int) -> Candidate:
    confirmed = task["confirmed"]
    if not np.isclose(confirmed["mean"], np.mean(line["per_split"])):
        raise ValueError("result and evidence are not of the same labeling")
    labeling = from_positives(task["positives"], n_images)
    return Candidate(
        number=0,
        trial=int(task["trial"]),
        seen=finite(task["seen"]),
        positives=tuple(np.flatnonzero(labeling).tolist()),
        key=key(labeling),
        known_classes={
            str(target): {str(name): int(count) for name, count in counts.items()}
            for target, counts in task["known_classes"].items()
        },
        match={str(target): _match(row) for target, row in task["match"].items()},
        evidence=Evidence(
            mean=finite(confirmed["mean"]),
            sem=finite(confirmed["sem"]),
            n_splits=int(confirmed["n_splits"]),
            p=finite(confirmed["p"]),
            p_adjusted=finite(confirmed["p_adjusted"]),
            is_task=bool(task["is_task"]),
            baseline=finite(line["baseline"]),
            training=tuple(map(finite, line["training"])),
            validation=tuple(map(finite, line["validation"])),
        ),
    )


def _match(row: Mapping[str, Any]) -> ClassMatch:
    return {
        "class": str(row["class"]),
        "shared": int(row["shared"]),
        "share": finite(row["share"]),
        "recovered": bool(row["recovered"]),
        "flipped": bool(row["flipped"]),
    }


def _mean(candidate: Candidate) -> float:
    assert candidate.evidence is not None
    return candidate.evidence.mean


def flat(values: Mapping[str, Any], path: str = "") -> tuple[tuple[str, str], ...]:
    """Dotted path and text of every value that is not None."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{path}{name}.")
        elif value is not None:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            rows.append((f"{path}{name}", text))
    return tuple(rows)


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Whatever a damaged file makes of its reader becomes one sentence that names the file."""
    try:
        yield
    except RunFolderError:
        raise
    except (OSError, LookupError, TypeError, ArithmeticError, ValueError, AttributeError) as error:
        raise RunFolderError(
            f"'{file}' must be as the search wrote it, but it is missing or was changed; restore "
            f"it, or run the search again: taskdisc search {file.parent / CONFIG}"
        ) from error
