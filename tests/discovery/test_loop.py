from collections.abc import Iterator
from itertools import pairwise
from math import comb
from typing import Any

import numpy as np
import pytest

from taskdisc.config import SearchSettings, settings_from
from taskdisc.discovery import loop
from taskdisc.discovery.loop import WORST, run_trials
from taskdisc.discovery.proposers import PROPOSERS, NevergradProposer, Proposer
from taskdisc.discovery.row import Row
from taskdisc.discovery.space import Space
from taskdisc.discovery.trials import Trial
from taskdisc.errors import RunFailedError, RunFolderError
from taskdisc.images import ImageSet, as_image_set
from taskdisc.journal import MemoryJournal
from taskdisc.labelings import ablation, best_different, from_hex, is_near, key, random_labelings
from taskdisc.progress import Progress
from taskdisc.taskness.score import Scores


def noise(n_images: int) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (n_images, 32, 32, 3))
    return as_image_set(pixels.astype(np.uint8))


class FakeScorer:
    """Scores a labeling by the positions of its positives, three at a time, and counts.

    As with training, what is scored together decides the last bits.
    """

    group = 3

    def __init__(self, fail_after: int | None = None) -> None:
        self.scored: list[np.ndarray] = []
        self._fail_after = fail_after

    def score_groups(self, groups: list[np.ndarray]) -> Iterator[Scores]:
        for group in groups:
            if self._fail_after is not None and len(self.scored) >= self._fail_after:
                raise RunFailedError("a worker process died.")
            self.scored.extend(group)
            company = 1e-12 * len(group) + 1e-9 * group[0, 0]
            values = group @ np.sin(np.arange(group.shape[1])) + company
            per_split = np.stack([values, values], axis=1)
            empty = np.zeros((*per_split.shape, 1))
            yield Scores(per_split, per_split, empty, empty)


class Steps(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.done = 0
        self.best: list[float] = []

    def start(self, stage: str, total: int, unit: str) -> None:
        self.stages.append((stage, total))

    def advance(self, n: int, best: float | None = None, *, known: bool = False) -> None:
        self.done += n
        assert best is not None
        self.best.append(best)


def search_settings(**changes: Any) -> SearchSettings:
    plain = {"budget": 40, "batch": 7, "proposer": "TwoPointsDE", "tasks": 1}
    return settings_from(SearchSettings, {**plain, "closed_form": {"kernel": "rbf"}, **changes})


def run(
    settings: SearchSettings, n_images: int = 20, log: MemoryJournal | None = None
) -> tuple[list[Trial], MemoryJournal, FakeScorer]:
    scorer, log = FakeScorer(), log or MemoryJournal()
    trials = run_trials(Space(noise(n_images), settings), scorer, log, Progress())
    return trials, log, scorer


def seconds_left_out(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: line[name] for name in line if name != "seconds"} for line in lines]


def logged(lines: list[dict[str, Any]]) -> MemoryJournal:
    log = MemoryJournal()
    log.append(lines)
    return log


@pytest.mark.parametrize("proposer", ["random", "TwoPointsDE", "CMA", "PSO", "swap", "spectral"])
@pytest.mark.parametrize(("n_images", "ratio"), [(20, 4), (20, 1)])
def test_the_budget_counts_different_labelings(proposer: str, n_images: int, ratio: int) -> None:
    trials, log, scorer = run(search_settings(proposer=proposer, ratio=ratio), n_images)
    # There may be fewer local optima.
    n = len(trials) if proposer in ("swap", "spectral") else 40
    assert len(trials) == len(log.lines) == len(scorer.scored) == n > 0
    assert len({key(trial.labeling) for trial in trials}) == n
    assert all(trial.labeling.sum() == n_images // (ratio + 1) for trial in trials)
    for number, (trial, line) in enumerate(zip(trials, log.lines, strict=True)):
        assert line["trial"] == number
        assert line["taskness"] == trial.taskness
        assert np.array_equal(from_hex(line["labeling"], n_images), trial.labeling)
        assert line["seconds"] >= 0


def test_progress_follows_the_trials() -> None:
    steps = Steps()
    log = MemoryJournal()
    trials = run_trials(Space(noise(20), search_settings()), FakeScorer(), log, steps)
    assert steps.stages == [("search", 40)]
    assert steps.done == 40
    assert steps.best[-1] == max(trial.taskness for trial in trials)
    assert all(a <= b for a, b in pairwise(steps.best))


class Repeating(Proposer):
    """Asks the same five labelings (and their flips) again and again, then others."""

    def __init__(self, n_images: int, n_pos: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._fresh = iter(random_labelings(1000, n_images, n_pos, rng))
        self._first = [next(self._fresh) for _ in range(5)]
        self.asks: list[np.ndarray] = []
        self.told: list[np.ndarray] = []

    def ask(self, n_labelings: int) -> np.ndarray:
        turn = len(self.asks)
        rows = [row if turn % 2 else 1 - row for row in self._first]
        rows += [self._first[0]]
        if turn > 3:
            rows[0] = next(self._fresh)
        self.asks.append(np.stack(rows[:n_labelings]))
        return self.asks[-1]

    def tell(self, taskness: np.ndarray) -> None:
        self.told.append(taskness)


def test_a_labeling_that_comes_back_or_its_flip_is_answered_from_what_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Repeating] = []

    def make(space: Space) -> Repeating:
        made.append(Repeating(space.n_images, space.n_pos, space.settings.seed))
        return made[-1]

    monkeypatch.setitem(PROPOSERS, "repeating", Row("repeats itself", make))
    settings = search_settings(proposer="repeating", ratio=1, budget=9, batch=6)
    trials, _, scorer = run(settings, 20)
    assert len(trials) == len(scorer.scored) == 9
    proposer = made[0]
    assert len(proposer.asks) == len(proposer.told) > 4
    known = {key(trial.labeling): trial.taskness for trial in trials}
    for labelings, told in zip(proposer.asks, proposer.told, strict=True):
        assert told.tolist() == [known[key(labeling)] for labeling in labelings]


@pytest.mark.parametrize("known", [[], ["classes"]])
@pytest.mark.parametrize("proposer", ["random", "TwoPointsDE", "swap"])
def test_proposers_are_told_the_scores_and_the_worst_of_what_is_near_to_known(
    proposer: str, known: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = search_settings(proposer=proposer, known=known, min_ablation=0.6)
    classes = np.arange(20) // 4
    images = ImageSet("array", noise(20).images, targets={"c": classes}, classes={"c": [*"abcde"]})
    space = Space(images, settings)
    assert len(space.known) == (5 if known else 0)
    told: dict[str, float] = {}
    row = PROPOSERS.get(proposer)

    def listening(space: Space) -> Proposer:
        inner = row.make(space) if row else NevergradProposer(proposer, space)
        ask, tell = inner.ask, inner.tell
        last: list[np.ndarray] = []

        def asked(n: int) -> np.ndarray:
            last[:] = list(ask(n))
            return np.array(last, dtype=np.uint8).reshape(-1, 20)

        def heard(taskness: np.ndarray) -> None:
            told.update(zip(map(key, last), taskness.tolist(), strict=True))
            tell(taskness)

        monkeypatch.setattr(inner, "ask", asked)
        monkeypatch.setattr(inner, "tell", heard)
        return inner

    monkeypatch.setattr(loop, "make_proposer", listening)
    trials = run_trials(space, FakeScorer(), MemoryJournal(), Progress())
    assert len(told) == len(trials)
    for trial in trials:
        near = is_near(trial.labeling, space.known, 0.6)
        assert told[key(trial.labeling)] == (WORST if near else trial.taskness)
    n_near = sum(is_near(trial.labeling, space.known, 0.6) for trial in trials)
    if known and proposer == "random":
        assert 0 < n_near < len(trials)
    if not known:
        assert n_near == 0


@pytest.mark.parametrize("proposer", ["random", "TwoPointsDE", "swap", "spectral"])
def test_a_search_goes_on_from_any_place_where_it_was_stopped(proposer: str) -> None:
    settings = search_settings(proposer=proposer, ratio=1)
    trials, log, _ = run(settings)
    for cut in range(len(log.lines) + 1):  # also inside a group and inside a batch
        again, longer, scorer = run(settings, log=logged(log.lines[:cut]))
        assert [t.taskness for t in again] == [t.taskness for t in trials]
        assert np.array_equal([t.labeling for t in again], [t.labeling for t in trials])
        assert seconds_left_out(longer.lines) == seconds_left_out(log.lines)
        # Only what is missing is scored, and what was trained together with it.
        assert len(scorer.scored) < len(trials) - cut + FakeScorer.group


def test_a_longer_budget_goes_on_with_a_random_search() -> None:
    # With nevergrad the budget is part of what decides the sequence.
    short = run(search_settings(proposer="random", budget=14))
    long = run(search_settings(proposer="random", budget=40), log=short[1])
    straight = run(search_settings(proposer="random", budget=40))
    assert seconds_left_out(long[1].lines) == seconds_left_out(straight[1].lines)


def test_a_failed_run_keeps_its_groups_and_goes_on() -> None:
    settings, log = search_settings(), MemoryJournal()
    with pytest.raises(RunFailedError):
        run_trials(Space(noise(20), settings), FakeScorer(fail_after=10), log, Progress())
    assert len(log.lines) >= 10
    assert seconds_left_out(run(settings, log=log)[1].lines) == seconds_left_out(
        run(settings)[1].lines
    )


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"ratio": 1}, {"proposer": "random"}, {"proposer": "swap"}, {"budget": 39}],
)
def test_a_log_of_other_settings_is_refused(changes: dict[str, Any]) -> None:
    log = run(search_settings())[1]
    with pytest.raises(RunFolderError, match="trials must be those of its settings"):
        run(search_settings(**changes), log=log)


def test_a_log_of_other_settings_is_refused_before_anything_is_scored() -> None:
    log = run(search_settings())[1]
    before = list(log.lines)
    scorer = FakeScorer()
    with pytest.raises(RunFolderError):
        run_trials(Space(noise(20), search_settings(seed=1)), scorer, log, Progress())
    assert log.lines == before
    assert scorer.scored == []


@pytest.mark.parametrize(
    "line", [{}, {"labeling": "zz", "taskness": 0.1}, {"labeling": "c00000"}, {"labeling": 5}]
)
def test_a_log_with_damaged_trials_is_refused(line: dict[str, Any]) -> None:
    with pytest.raises(RunFolderError, match="trial"):
        run(search_settings(), log=logged([line]))


@pytest.mark.parametrize(("n_images", "ratio", "n_labelings"), [(5, 4, 5), (6, 1, comb(6, 3) // 2)])
def test_a_search_stops_when_it_has_seen_everything(
    n_images: int, ratio: int, n_labelings: int
) -> None:
    for proposer in ("random", "TwoPointsDE", "swap", "spectral"):
        settings = search_settings(proposer=proposer, ratio=ratio)
        assert len(run(settings, n_images)[0]) <= n_labelings
    assert len(run(search_settings(proposer="random", ratio=ratio), n_images)[0]) == n_labelings


def bits(text: str) -> np.ndarray:
    return np.array([int(c) for c in text], dtype=np.uint8)


def trials_of(*pairs: tuple[str, float]) -> list[Trial]:
    return [Trial(bits(text), taskness) for text, taskness in pairs]


def best_of(trials: list[Trial], n: int, min_ablation: float, *known: str) -> list[int]:
    """Positions of the best trials that differ, from each other and from known labelings."""
    order = np.argsort([-trial.taskness for trial in trials], kind="stable").tolist()
    away = np.array([bits(text) for text in known]) if known else None
    return best_different([trial.labeling for trial in trials], order, n, min_ablation, away)


def test_the_best_labelings_that_differ_are_chosen_in_order() -> None:
    trials = trials_of(
        ("110000", 0.5), ("101000", 0.9), ("001100", 0.8), ("000011", 0.7), ("010010", 0.6)
    )
    assert best_of(trials, 5, 0.0) == [1, 2, 3, 4, 0]
    assert best_of(trials, 5, 0.5) == [1, 2, 3, 4, 0]
    assert best_of(trials, 5, 0.8) == [1, 3]
    assert best_of(trials, 1, 0.8) == [1]
    assert best_of([], 3, 0.8) == []
    assert best_of(trials, 5, 0.8, "101000") == [3]
    assert best_of(trials, 5, 0.5, "101000", "000011") == [2, 4, 0]
    assert best_of(trials, 5, 1.0, "100100", "010001") == []


def test_equal_scores_go_by_the_order_of_scoring() -> None:
    trials = trials_of(("1000", 0.5), ("0100", 0.5), ("0010", 0.7))
    assert best_of(trials, 3, 1.0) == [2, 0, 1]


def test_at_1_to_1_half_is_asked_and_flips_are_the_same() -> None:
    trials = trials_of(("11110000", 0.9), ("00001111", 0.8), ("11001100", 0.7), ("11100001", 0.6))
    assert best_of(trials, 4, 1.0) == [0, 2]
    assert best_of(trials, 4, 0.5) == [0, 2, 3]
    assert best_of(trials, 4, 1.0, "00001111") == [2]
    assert best_of(trials, 4, 1.0, "00110011") == [0]


@pytest.mark.parametrize("ratio", [1, 4])
@pytest.mark.parametrize("min_ablation", [0.2, 0.5, 0.8, 1.0])
def test_any_two_chosen_are_far_enough_apart(ratio: int, min_ablation: float) -> None:
    rng = np.random.default_rng(0)
    labelings = random_labelings(200, 20, 20 // (ratio + 1), rng)
    trials = [Trial(labeling, float(rng.random())) for labeling in labelings]
    chosen = best_of(trials, 200, min_ablation)
    least = min_ablation / 2 if ratio == 1 else min_ablation
    for i, j in pairwise(chosen):
        assert trials[i].taskness >= trials[j].taskness
    for n, i in enumerate(chosen):
        for j in chosen[:n]:
            assert ablation(trials[i].labeling, trials[j].labeling) >= least - 1e-9
    # Nothing that was left out would have fitted.
    for i in set(range(200)) - set(chosen):
        better = [j for j in chosen if trials[j].taskness >= trials[i].taskness]
        near = [ablation(trials[i].labeling, trials[j].labeling) for j in better]
        assert min(near) < least
