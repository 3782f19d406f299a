import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from taskdisc.config import SearchSettings, settings_from
from taskdisc.discovery.proposers import PROPOSERS, Proposer, check_proposer, make_proposer
from taskdisc.discovery.space import Space
from taskdisc.errors import SettingError
from taskdisc.images import ImageSet, as_image_set
from taskdisc.labelings import ablation, best_different, key, random_labelings
from taskdisc.taskness.closed_form import closed_form_taskness

CLIMBERS = ["swap", "spectral"]
NAMES = [*PROPOSERS, "TwoPointsDE", "OnePlusOne", "CMA", "PSO", "RandomSearch", "NGOpt"]
ONE_AT_A_TIME = "Cobyla"
"""An optimiser that refuses to be asked for more before it is told."""

N_IMAGES, N_POS = 30, 6
HIDDEN = random_labelings(1, N_IMAGES, N_POS, np.random.default_rng(99))[0]


def noise(n_images: int = N_IMAGES) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (n_images, 32, 32, 3))
    return as_image_set(pixels.astype(np.uint8))


def space_of(name: str, images: ImageSet | None = None, **changes: Any) -> Space:
    plain = {"budget": 60, "batch": 10, "tasks": 1, "closed_form": {"kernel": "rbf"}}
    settings = settings_from(SearchSettings, {**plain, **changes, "proposer": name})
    return Space(noise() if images is None else images, settings)


def make(name: str, seed: int = 0, budget: int = 60, **changes: Any) -> Proposer:
    return make_proposer(space_of(name, seed=seed, budget=budget, **changes))


def closeness(labelings: np.ndarray) -> np.ndarray:
    """A stand-in for taskness whose best labeling is known: 0 at `HIDDEN`, -1 far from it."""
    return np.array([-ablation(labeling, HIDDEN) for labeling in labelings])


def asked(proposer: Proposer, n_labelings: int, batch: int = 10) -> np.ndarray:
    """The labelings that a proposer asks in batches, being told how close each is."""
    rows: list[np.ndarray] = []
    while len(rows) < n_labelings:
        labelings = proposer.ask(batch)
        if not len(labelings):
            break
        proposer.tell(closeness(labelings))
        rows.extend(labelings)
    return np.stack(rows)


@pytest.mark.parametrize("name", NAMES)
class TestEveryProposer:
    def test_asks_labelings_with_exactly_their_positives(self, name: str) -> None:
        labelings = asked(make(name), 60)
        assert labelings.dtype == np.uint8
        assert labelings.shape[1] == N_IMAGES
        assert set(np.unique(labelings)) == {0, 1}
        assert (labelings.sum(axis=1) == N_POS).all()

    def test_same_seed_same_sequence(self, name: str) -> None:
        state = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
        assert np.array_equal(asked(make(name), 60), asked(make(name), 60))
        # … and nothing is drawn from or written to the global generator.
        assert np.array_equal(state, np.random.get_state()[1])  # type: ignore[index]

    def test_other_seed_other_sequence(self, name: str) -> None:
        if name in CLIMBERS:  # from other starts they may find the same, best first
            starts = [make(name, seed).starts(100) for seed in (0, 1)]  # type: ignore[attr-defined]
            assert not np.array_equal(*starts)
            return
        assert not np.array_equal(asked(make(name), 30)[:30], asked(make(name, seed=1), 30)[:30])

    def test_does_not_favour_the_first_images(self, name: str) -> None:
        # Images come class by class, so "the first images" is a class label that nobody may leak.
        first = np.arange(N_IMAGES) < N_POS
        starts = np.concatenate([make(name, seed).ask(5) for seed in range(4)])
        assert not (starts == first).all(axis=1).any()

    def test_takes_batches_smaller_than_announced(self, name: str) -> None:
        proposer = make(name, tasks=12, min_ablation=0.3)
        for n_labelings in (3, 1, 4, 2):
            labelings = proposer.ask(n_labelings)
            assert 1 <= len(labelings) <= n_labelings
            proposer.tell(closeness(labelings))

    @pytest.mark.parametrize("ratio", [1, 2, N_IMAGES - 1])
    def test_any_ratio(self, name: str, ratio: int) -> None:
        labelings = make(name, ratio=ratio).ask(10)
        assert len(labelings)
        assert (labelings.sum(axis=1) == N_IMAGES // (ratio + 1)).all()

    def test_takes_equal_scores(self, name: str) -> None:
        proposer = make(name)
        for _ in range(4):
            labelings = proposer.ask(4)
            proposer.tell(np.zeros(len(labelings)))
        assert len(proposer.ask(4)) or name in CLIMBERS

    def test_a_budget_of_one(self, name: str) -> None:
        proposer = make(name, budget=1, batch=1)
        labelings = proposer.ask(1)
        assert labelings.shape == (1, N_IMAGES)
        proposer.tell(closeness(labelings))


SEQUENCES = """if True:
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from test_proposers import NAMES, asked, make
    for name in NAMES:
        print(name, asked(make(name), 60).tobytes().hex())
"""


@pytest.fixture(scope="module")
def spaces(digits: ImageSet) -> dict[tuple[str, int], Space]:
    """Searches of digits by name and ratio, for six tasks each."""
    return {
        (name, ratio): space_of(
            name, digits, ratio=ratio, tasks=6 if ratio == 1 else 5, min_ablation=0.8, seed=2
        )
        for name in CLIMBERS
        for ratio in (1, 4)
    }


@pytest.mark.parametrize("ratio", [1, 4])
@pytest.mark.parametrize("name", CLIMBERS)
class TestClimbers:
    def test_never_ask_twice_and_run_dry(
        self, spaces: dict[tuple[str, int], Space], name: str, ratio: int
    ) -> None:
        proposer = make_proposer(spaces[name, ratio])
        every: list[str] = []
        while len(labelings := proposer.ask(100)):
            every += map(key, labelings)
            assert len(every) < 100_000
        assert len(set(every)) == len(every) >= spaces[name, ratio].settings.tasks
        assert len(proposer.ask(5)) == 0

    def test_batches_of_any_size_are_one_sequence(
        self, spaces: dict[tuple[str, int], Space], name: str, ratio: int
    ) -> None:
        one, other = (make_proposer(spaces[name, ratio]) for _ in range(2))
        together = one.ask(40)
        apart = [other.ask(n) for n in (1, 20, 3, 16)]
        assert np.array_equal(np.concatenate(apart), together)

    def test_what_they_are_told_changes_nothing(
        self, spaces: dict[tuple[str, int], Space], name: str, ratio: int
    ) -> None:
        one, other = (make_proposer(spaces[name, ratio]) for _ in range(2))
        for _ in range(4):
            a, b = one.ask(9), other.ask(9)
            assert np.array_equal(a, b)
            one.tell(np.zeros(len(a)))
            other.tell(np.linspace(0, 1, len(b)))

    def test_ask_better_labelings_than_are_drawn(
        self, spaces: dict[tuple[str, int], Space], name: str, ratio: int
    ) -> None:
        space = spaces[name, ratio]
        labelings = make_proposer(space).ask(30)
        drawn = random_labelings(300, space.n_images, space.n_pos, np.random.default_rng(0))
        found, luck = (closed_form_taskness(space.quadratic, x) for x in (labelings, drawn))
        assert np.median(found) > luck.max()

    def test_find_as_many_different_labelings_as_are_wanted(
        self, digits: ImageSet, name: str, ratio: int
    ) -> None:
        def n_different(tasks: int) -> int:
            """At this distance among the labelings of a search for so many tasks."""
            changes: dict[str, Any] = {"ratio": ratio, "min_ablation": 0.6}
            space = space_of(name, digits, tasks=tasks, **changes)
            proposer, rows = make_proposer(space), np.empty((0, len(digits)), dtype=np.uint8)
            while len(rows) < 3000 and len(labelings := proposer.ask(100)):
                rows = np.concatenate([rows, labelings])
            order = np.argsort(-closed_form_taskness(space.quadratic, rows), kind="stable")
            return len(best_different(rows, order.tolist(), 10**6, 0.6))

        few, many = n_different(1), n_different(12)
        assert many > few
        assert many >= 12


@pytest.mark.parametrize("seed", [0, 3])
def test_optimisers_begin_with_the_local_optima_that_they_are_given(
    digits: ImageSet, seed: int
) -> None:
    for ratio in (1, 4):
        changes = {"ratio": ratio, "seed": seed, "tasks": 3}
        optima = make_proposer(space_of("swap", digits, **changes)).ask(7)
        for name in ("TwoPointsDE", "OnePlusOne", "CMA"):
            first = make_proposer(space_of(name, digits, warm_start=7, **changes)).ask(10)
            assert {key(row) for row in optima} <= {key(row) for row in first}
            plain = make_proposer(space_of(name, digits, **changes)).ask(10)
            assert not {key(row) for row in optima} & {key(row) for row in plain}


def test_another_process_asks_the_same() -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SEQUENCES, os.path.dirname(__file__)]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    expected = [f"{name} {asked(make(name), 60).tobytes().hex()}" for name in NAMES]
    assert answer.stdout.split("\n")[:-1] == expected


@pytest.mark.parametrize("seed", [0, 1])
def test_two_points_de_beats_random_on_a_hidden_labeling(seed: int) -> None:
    best = {
        name: closeness(asked(make(name, seed, budget=600, batch=30), 600, 30)).max()
        for name in ("random", "TwoPointsDE")
    }
    assert best["TwoPointsDE"] > best["random"]
    assert best["TwoPointsDE"] >= -1 / 3


def test_one_at_a_time_is_asked_one_at_a_time() -> None:
    proposer = make(ONE_AT_A_TIME)
    assert len(proposer.ask(10)) == 1


def test_a_tell_answers_the_last_ask() -> None:
    proposer = make("TwoPointsDE")
    proposer.ask(3)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        proposer.tell(np.zeros(2))


@pytest.mark.parametrize("seed", [2**32 - 1, 2**32, 2**70])
@pytest.mark.parametrize("name", ["random", "TwoPointsDE"])
def test_any_seed_that_the_settings_take(name: str, seed: int) -> None:
    assert len(make(name, seed=seed).ask(2)) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "TwoPointDE",
            r"`proposer` must be swap, spectral, random or .* got 'TwoPointDE'; "
            "did you mean 'TwoPointsDE'",
        ),
        ("twopointsde", "did you mean 'TwoPointsDE'"),
        ("randm", "did you mean 'random'"),
        ("", r"`proposer` must be .* choose one of"),
    ],
)
def test_unknown_names(name: str, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        check_proposer(name)
    with pytest.raises(SettingError, match=words):
        make(name)


@pytest.mark.parametrize("name", NAMES)
def test_known_names(name: str) -> None:
    check_proposer(name)


class Lacking:
    """An optimiser of nevergrad that needs a package which is not installed."""

    no_parallelization = False

    def __init__(self, parametrization: Any, budget: int, num_workers: int) -> None:
        pass

    def ask(self) -> None:
        raise ModuleNotFoundError("No module named 'nlopt'")


def test_an_optimiser_that_cannot_work_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import nevergrad as ng

    # As several do, this one imports its package when it is first asked.
    monkeypatch.setitem(ng.optimizers.registry, "Lacking", Lacking)
    with pytest.raises(SettingError, match=r"`proposer` 'Lacking' .*nlopt"):
        make("Lacking").ask(2)
