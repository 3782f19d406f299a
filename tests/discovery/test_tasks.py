from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskdisc import load_tasks, search
from taskdisc.config import SearchSettings
from taskdisc.discovery.result import SearchResult
from taskdisc.discovery.tasks import check_made_for
from taskdisc.discovery.trials import Trial
from taskdisc.errors import RunFolderError, SettingError, TaskdiscError
from taskdisc.files import write_npz
from taskdisc.images import ImageSet
from taskdisc.taskness.confirm import Confirmation


def result_of(digits: ImageSet, means: list[float]) -> SearchResult:
    """A search whose candidates were confirmed at these means; random labelings have 0 … 0.098."""
    images = digits.take(np.arange(20))
    trials = [Trial(np.roll(np.arange(20) < 4, i).astype(np.uint8), i / 10) for i in range(5)]
    per_split = np.array(means)[:, None] + np.array([-0.01, 0.01])
    curves = np.zeros((len(means), 3))
    evidence = Confirmation(per_split, np.arange(99) / 1000, curves, curves, np.ones(len(means)))
    candidates = [4, 2, 0][: len(means)]
    return SearchResult(
        SearchSettings(), images, trials, candidates, evidence, {"search": 1.0, "confirm": 2.0}
    )


def test_tasks_come_best_first_with_their_evidence(digits: ImageSet, tmp_path: Path) -> None:
    result = result_of(digits, [0.5, 0.02, 0.7])
    write_npz(tmp_path / "tasks.npz", result.task_arrays())
    for path in (tmp_path, tmp_path / "tasks.npz", str(tmp_path)):
        tasks = load_tasks(path)
        assert len(tasks) == 2  # the labeling at 0.02 is no task
        assert np.array_equal(tasks.labelings, result.labelings[:2])
        assert tasks.labelings.dtype == np.uint8
        assert tasks.taskness == pytest.approx([0.7, 0.5])
        assert tasks.sem == pytest.approx([0.01, 0.01])
        assert tasks.p_adjusted == pytest.approx([0.015, 0.015])
        assert np.array_equal(tasks.indices, result.images.indices)
        assert tasks.hashes.tolist() == result.images.hashes()


def test_a_search_may_find_nothing(digits: ImageSet, tmp_path: Path) -> None:
    write_npz(tmp_path / "tasks.npz", result_of(digits, [0.01, -0.2]).task_arrays())
    tasks = load_tasks(tmp_path)
    assert len(tasks) == 0
    assert tasks.labelings.shape == (0, 20)
    assert len(tasks.indices) == len(tasks.hashes) == 20


def test_the_result_says_what_was_found(digits: ImageSet) -> None:
    result = result_of(digits, [0.5, 0.02, 0.7])
    values = result.to_dict()
    tasks = values["tasks"]
    assert [task["trial"] for task in tasks] == [0, 4, 2]
    assert [task["is_task"] for task in tasks] == [True, True, False]
    assert tasks[0]["positives"] == [0, 1, 2, 3]
    assert tasks[0]["seen"] == 0
    assert tasks[0]["confirmed"]["mean"] == pytest.approx(0.7)
    assert tasks[0]["match"]["digit"]["shared"] == 4
    assert tasks[0]["match"]["digit"]["recovered"]
    assert values["recovered"]["digit"]["n_classes"] == 2
    assert values["n_images"] == 20
    assert values["trials"] == 5
    assert values["threshold"] == pytest.approx(np.quantile(np.arange(99) / 1000, 0.95))


def test_paths_without_tasks(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"no config\.yaml.*taskdisc runs"):
        load_tasks(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(RunFolderError, match=r"finished run.*--resume"):
        load_tasks(tmp_path)
    with pytest.raises(RunFolderError, match="does not exist"):
        load_tasks(tmp_path / "none")


def test_other_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.npz"
    write_npz(path, {"labelings": np.zeros((1, 4), dtype=np.uint8)})
    with pytest.raises(RunFolderError, match="without hashes, indices, p_adjusted, sem, taskness"):
        load_tasks(path)


@pytest.mark.parametrize("content", [b"", b"torn"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tasks.npz").write_bytes(content)
    with pytest.raises(TaskdiscError, match=r"tasks\.npz"):
        load_tasks(tmp_path)


def test_a_search_in_memory(digits: ImageSet) -> None:
    options: dict[str, Any] = {
        "budget": 4,
        "proposer": "random",
        "protocol": {"n_steps": 5, "n_splits": 5},
        "confirm": {"n_splits": 2, "n_random": 60, "random_splits": 1},
        "jobs": 1,
    }
    images = digits.take(np.arange(10)).images
    first = search(images, tasks=2, **options)
    assert len(first.trials) == 4
    assert 1 <= len(first.candidates) <= 2
    again = search(images, tasks=2, **options)
    assert np.array_equal(first.labelings, again.labelings)
    assert np.array_equal(first.confirmation.per_split, again.confirmation.per_split)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ratio": 3}, "multiple of `ratio` .* = 4, got 50; take 48 or 52 images"),
        ({"ratio": 0}, "`ratio` must be"),
        ({"bugdet": 3}, "did you mean 'budget'"),
        ({"proposer": "TwoPointDE"}, "did you mean 'TwoPointsDE'"),
        ({"jobs": -1}, "`jobs` must be"),
        ({"device": "abacus"}, "`device` must be"),
        ({"confirm": {"n_random": 3}}, "`confirm.n_random` must be"),
        ({"protocol": {"n_step": 5}}, "did you mean 'n_steps'"),
    ],
)
def test_bad_arguments(digits: ImageSet, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        search(digits, **options)


def test_labelings_are_only_taken_to_their_own_images(digits: ImageSet, tmp_path: Path) -> None:
    result = result_of(digits, [0.5, 0.02, 0.7])
    write_npz(tmp_path / "tasks.npz", result.task_arrays())
    check_made_for(tmp_path / "tasks.npz", result.images)
    others = digits.take(np.arange(len(digits))[::-1])
    with pytest.raises(SettingError, match=r"must be those that .*tasks\.npz' was made for"):
        check_made_for(tmp_path / "tasks.npz", others)
