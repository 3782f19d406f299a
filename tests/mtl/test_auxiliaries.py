"""Auxiliary tasks: discovered ones, and the controls that they have to beat."""

from pathlib import Path

import numpy as np
import pytest
from training import SPLIT, images

from taskdisc.errors import SettingError
from taskdisc.mtl.auxiliaries import auxiliary_tasks, named, names_of, resolved
from taskdisc.mtl.data import split_of


def test_random_labelings_are_half_yes_and_of_the_seed() -> None:
    first, again, other = (auxiliary_tasks("random:5", images(), SPLIT, seed) for seed in (0, 0, 1))
    assert [task.name for task in first] == names_of("random:5")
    for one, same, another in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one.labels, same.labels)
        assert not np.array_equal(one.labels, another.labels, equal_nan=True)
    share = np.mean([np.nanmean(task.labels) for task in first])
    assert share == pytest.approx(0.5, abs=0.1)
    assert len({task.labels.tobytes() for task in first}) == 5


@pytest.mark.parametrize("aux", ["random:3", "classes:3"])
def test_test_images_are_not_labelled(aux: str) -> None:
    for task in auxiliary_tasks(aux, images(), SPLIT, 0):
        assert not task.known[SPLIT.test].any()
        assert task.known[SPLIT.train].all() and task.known[SPLIT.validation].all()
        assert task.kind == "binary"


def test_halves_of_classes_are_half_of_the_classes_and_each_once() -> None:
    digits = images().targets["digit"][SPLIT.train]
    halves = set()
    for task in auxiliary_tasks("classes:20", images(), SPLIT, 0):
        yes = frozenset(digits[task.labels[SPLIT.train, 0] == 1].tolist())
        no = frozenset(digits[task.labels[SPLIT.train, 0] == 0].tolist())
        assert len(yes) == len(no) == 5 and not yes & no
        halves.add(frozenset((yes, no)))
    assert len(halves) == 20


def test_all_halves_can_be_had_and_no_more() -> None:
    few = images().take(np.flatnonzero(images().targets["digit"] < 4))
    of_four = type(few)(few.source, few.images, few.targets, {"digit": list("0123")})
    split = split_of(len(of_four), 0.2, 0.2, 0)
    assert len(auxiliary_tasks("classes:3", of_four, split, 0)) == 3
    with pytest.raises(SettingError, match="at most the 3 halves that the 4 classes of 'digit'"):
        auxiliary_tasks("classes:4", of_four, split, 0)


def test_images_without_classes_have_no_halves() -> None:
    plain = type(images())("array", images().images)
    with pytest.raises(SettingError, match="for images without classes, got 'array'"):
        auxiliary_tasks("classes:2", plain, SPLIT, 0)


@pytest.mark.parametrize("aux", ["", "random:", "random:0", "random:-2", "classes:x", "nowhere"])
def test_what_is_no_auxiliary_is_refused(aux: str) -> None:
    with pytest.raises(SettingError, match="`aux` must be a run folder or file of tasks, random:"):
        named(aux)


def test_paths_are_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolved("run") == str(tmp_path / "run")
    assert resolved("random:run") == f"random:{tmp_path / 'run'}"
    assert resolved("random:7") == "random:7"
