from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.linalg import hadamard

import taskdisc
from taskdisc.config import SearchSettings, settings_from
from taskdisc.discovery.space import Space
from taskdisc.errors import RunFailedError, SettingError
from taskdisc.files import write_npz
from taskdisc.images import ImageSet, as_image_set
from taskdisc.labelings import is_near, n_positives, random_labelings

TINY: dict[str, Any] = {
    "budget": 30,
    "tasks": 2,
    "closed_form": {"kernel": "rbf"},
    "protocol": {"n_steps": 5, "n_splits": 5},
    "confirm": {"n_splits": 2, "n_random": 40, "random_splits": 1},
}


def blank(n_images: int) -> ImageSet:
    """Images of which only their number matters."""
    return as_image_set(np.zeros((n_images, 1, 1, 3), dtype=np.uint8))


def space_of(images: ImageSet, **changes: Any) -> Space:
    return Space(images, settings_from(SearchSettings, changes))


def most(n_images: int, ratio: int, min_ablation: float) -> int | None:
    return space_of(blank(n_images), ratio=ratio, min_ablation=min_ablation).most_tasks()


@pytest.mark.parametrize(
    ("n_images", "ratio", "min_ablation", "n"),
    [
        (50, 4, 1.0, 5),  # no positive in common: 50 / 10
        (100, 9, 1.0, 10),
        (30, 2, 1.0, 3),
        (7, 6, 1.0, 7),
        # At 1:1 the rows of a Hadamard matrix but for the constant one.
        (8, 1, 1.0, 7),
        (16, 1, 1.0, 15),
        (4, 1, 1.0, 3),
        # 25 positives of 50 cannot be half in common and half not.
        (50, 1, 1.0, 1),
        (6, 1, 1.0, 1),
        # By hand: s = 1, K (9 / 12 - 1) is negative; s = 1 of w = 4 of 12: K (16 / 12 - 1) <= 3.
        (12, 3, 0.66, None),
        (12, 2, 0.75, 9),
        (50, 4, 0.9, 9),
        (50, 4, 0.8, None),
        (10, 4, 0.0, None),
    ],
)
def test_most_tasks_by_known_answers(
    n_images: int, ratio: int, min_ablation: float, n: int | None
) -> None:
    assert most(n_images, ratio, min_ablation) == n


@pytest.mark.parametrize("order", [4, 8, 16, 32])
def test_hadamard_matrices_are_within_the_bound_at_1_to_1(order: int) -> None:
    rows = ((hadamard(order)[1:] + 1) // 2).astype(np.uint8)
    assert not any(is_near(a, b[None], 1.0) for a, b in combinations(rows, 2))
    bound = most(order, 1, 1.0)
    assert bound == len(rows)


@pytest.mark.parametrize("min_ablation", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
@pytest.mark.parametrize(("n_images", "ratio"), [(6, 1), (8, 1), (6, 2), (9, 2), (10, 4), (12, 3)])
def test_no_family_exceeds_the_bound(n_images: int, ratio: int, min_ablation: float) -> None:
    bound = most(n_images, ratio, min_ablation)
    rng = np.random.default_rng(0)
    n_pos = n_positives(n_images, ratio)
    every = np.zeros((0, n_images), dtype=np.uint8)
    for positives in combinations(range(n_images), n_pos):
        row = np.zeros((1, n_images), dtype=np.uint8)
        row[0, list(positives)] = 1
        every = np.concatenate([every, row])
    for _ in range(20):  # greedy families, from any order
        family: list[np.ndarray] = []
        for labeling in rng.permutation(every):
            if not is_near(labeling, family, min_ablation):
                family.append(labeling)
        assert bound is None or len(family) <= bound


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tasks": 6, "min_ablation": 1.0}, r"`tasks` must be at most 5 here.* 10 of 50 .*got 6"),
        ({"tasks": 2, "ratio": 1, "min_ablation": 1.0}, "`tasks` must be at most 1 here"),
        ({"tasks": 10, "min_ablation": 0.9}, "at most 9 here.*`min_ablation` = 0.9, got 10"),
    ],
)
def test_more_tasks_than_possible_are_refused(
    digits: ImageSet, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingError, match=words) as caught:
        taskdisc.search(digits, jobs=1, **changes)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def labelings() -> np.ndarray:
    return random_labelings(3, 50, 10, np.random.default_rng(0))


@pytest.fixture
def files(digits: ImageSet, labelings: np.ndarray, tmp_path: Path) -> dict[str, Path]:
    """The same labelings as every kind of file."""
    arrays = {"labelings": labelings, "hashes": np.array(digits.hashes())}
    write_npz(tmp_path / "a.npz", arrays)
    (tmp_path / "run").mkdir()
    write_npz(tmp_path / "run" / "tasks.npz", arrays)
    np.savetxt(tmp_path / "a.csv", labelings, fmt="%d", delimiter=",")
    return {name: tmp_path / name for name in ("a.npz", "a.csv", "run")}


@pytest.mark.parametrize("name", ["a.npz", "a.csv", "run"])
def test_known_labelings_are_read_from_files_and_runs(
    digits: ImageSet, labelings: np.ndarray, files: dict[str, Path], name: str
) -> None:
    assert np.array_equal(space_of(digits, known=[str(files[name])]).known, labelings)
    both = space_of(digits, known=["classes", str(files[name])]).known
    assert np.array_equal(both[5:], labelings)
    digit = digits.targets["digit"]
    assert {row.tobytes() for row in both[:5]} == {
        (digit == number).astype(np.uint8).tobytes() for number in np.unique(digit)
    }


def test_a_run_without_tasks_leaves_nothing_to_stay_away_from(
    tmp_path: Path, digits: ImageSet
) -> None:
    write_npz(tmp_path / "tasks.npz", {"labelings": np.empty((0, 50), dtype=np.uint8)})
    assert len(space_of(digits, known=[str(tmp_path)]).known) == 0


def test_nothing_is_known_by_default(digits: ImageSet) -> None:
    assert space_of(digits).known.shape == (0, 50)


@pytest.mark.parametrize("proposer", ["swap", "spectral", "random", "TwoPointsDE"])
@pytest.mark.parametrize("ratio", [1, 4])
def test_what_is_found_keeps_its_distance_from_what_is_known(
    digits: ImageSet, tmp_path: Path, proposer: str, ratio: int
) -> None:
    # At 1:1 only half of the distance is asked, and the flip counts as well.
    options: dict[str, Any] = {**TINY, "ratio": ratio, "proposer": proposer, "jobs": 1}
    first = taskdisc.search(digits, min_ablation=0.6, **options)
    away = np.concatenate(
        [first.labelings, 1 - first.labelings] if ratio == 1 else [first.labelings]
    )
    np.savetxt(tmp_path / "found.csv", away, fmt="%d", delimiter=",")
    known = [str(tmp_path / "found.csv"), *(["classes"] if ratio == 4 else [])]
    second = taskdisc.search(digits, min_ablation=0.6, known=known, **options)
    space = Space(digits, second.settings)
    assert len(second.labelings) == 2
    for labeling in second.labelings:
        assert not is_near(labeling, space.known, 0.6)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("a.csv", {"ratio": 1}, r"`known` must be labelings of 25 positives, as `ratio` asks.*csv"),
        ("classes", {"ratio": 1}, r"labelings of 25 positives.*no class of these images has 25"),
        ("short.csv", {}, "`known` must have one entry per image, 50 here, got 3"),
        (
            "others.npz",
            {},
            r"the images must be those that .*others\.npz' was made for, got others",
        ),
        ("gone.csv", {}, r"the labels file must exist, got .*gone\.csv"),
        ("empty", {}, r"the labels file must exist, got .*tasks\.npz"),
        ("a.txt", {}, r"must be a \.csv or an \.npz"),
        ("threes.csv", {}, "must hold 0 and 1 only, got 3"),
    ],
)
def test_known_labelings_that_do_not_fit(
    digits: ImageSet,
    files: dict[str, Path],
    tmp_path: Path,
    name: str,
    changes: dict[str, Any],
    words: str,
) -> None:
    (tmp_path / "short.csv").write_text("0,1,0\n")
    (tmp_path / "threes.csv").write_text(",".join("3" * 50))
    (tmp_path / "a.txt").write_text("0")
    (tmp_path / "empty").mkdir()
    hashes = np.array(digits.hashes()[::-1])
    labels = random_labelings(1, 50, 10, np.random.default_rng(0))
    write_npz(tmp_path / "others.npz", {"labelings": labels, "hashes": hashes})
    known = [name if name == "classes" else str(tmp_path / name)]
    with pytest.raises(SettingError, match=words) as caught:
        space_of(digits, known=known, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scorer", ["closed-form", "two-stage"])
def test_a_search_that_finds_but_known_labelings_says_so(
    digits: ImageSet, tmp_path: Path, scorer: str
) -> None:
    options: dict[str, Any] = {
        **TINY,
        "proposer": "random",
        "scorer": scorer,
        "budget": 5,
        "tasks": 1,
    }
    images = digits.take(np.arange(0, 50, 5))
    every = [[int(i in pair) for i in range(10)] for pair in combinations(range(10), 2)]
    np.savetxt(tmp_path / "all.csv", every, fmt="%d", delimiter=",")
    with pytest.raises(
        RunFailedError, match=r"all 5 labelings .* nearer than `min_ablation` = 0.8"
    ):
        taskdisc.search(images, known=[str(tmp_path / "all.csv")], jobs=1, **options)
