"""Auxiliary tasks: discovered ones, and the controls that they have to beat."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training import SPLIT, images

from taskdisc.discovery.tasks import load_tasks
from taskdisc.errors import RunFolderError, SettingError
from taskdisc.files import write_npz
from taskdisc.labelings import random_labelings
from taskdisc.mtl.auxiliaries import auxiliary_tasks, joined, names_of, resolved
from taskdisc.mtl.data import split_of
from taskdisc.mtl.tasks import loss_of


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


def test_joined_tasks_have_one_loss_the_mean_of_theirs() -> None:
    several = auxiliary_tasks("random:3", images(), SPLIT, 0)
    several[1].labels[SPLIT.train[:5]] = np.nan
    one = joined(several)
    outputs = torch.randn(120, 3, generator=torch.Generator().manual_seed(0))
    some = torch.from_numpy(SPLIT.train[5:])
    each = [
        loss_of("binary", outputs[some, i : i + 1], torch.from_numpy(task.labels)[some])
        for i, task in enumerate(several)
    ]
    labels = torch.from_numpy(one.labels)
    torch.testing.assert_close(
        loss_of("multi-label", outputs[some], labels[some]), torch.stack(each).mean()
    )
    assert one.n_outputs == 3 and not one.known[SPLIT.test].any()


def test_halves_of_classes_are_half_of_the_classes_and_each_once() -> None:
    digits = images().targets["digit"][SPLIT.train]
    halves = set()
    for task in auxiliary_tasks("classes:20", images(), SPLIT, 0):
        yes = frozenset(digits[task.labels[SPLIT.train, 0] == 1].tolist())
        no = frozenset(digits[task.labels[SPLIT.train, 0] == 0].tolist())
        assert len(yes) == len(no) == 5 and not yes & no
        halves.add(frozenset((yes, no)))
    assert len(halves) == 20


def test_all_halves_of_the_classes_that_occur_can_be_had_and_no_more() -> None:
    of_four = images().take(np.flatnonzero(images().targets["digit"] % 3 == 0))
    split = split_of(len(of_four), 0.2, 0.2, 0)
    assert len(auxiliary_tasks("classes:3", of_four, split, 0)) == 3
    with pytest.raises(SettingError, match="at most the 3 halves that the 4 classes of 'digit'"):
        auxiliary_tasks("classes:4", of_four, split, 0)


def test_images_without_classes_have_no_halves() -> None:
    plain = type(images())("array", images().images)
    with pytest.raises(SettingError, match="for images without classes, got 'array'"):
        auxiliary_tasks("classes:2", plain, SPLIT, 0)


@pytest.mark.parametrize("aux", ["", "random:", "random:0", "classes:x", "nowhere", "~/nowhere"])
def test_what_is_no_auxiliary_is_refused(aux: str) -> None:
    with pytest.raises(SettingError, match="`aux` must be a run folder or file of tasks, random:"):
        resolved(aux)


@pytest.fixture
def found(tmp_path: Path) -> Path:
    """A file of two tasks that were found on 60 of the images, in another order."""
    return written(tmp_path / "tasks.npz", seed=0)


def written(path: Path, seed: int) -> Path:
    """Two labelings of 15 yes and 45 no in a file, as a search writes them."""
    some = images().resized(32).take(np.random.default_rng(3).permutation(120)[:60])
    labelings = random_labelings(2, 60, 15, np.random.default_rng(seed))
    arrays = {
        "labelings": labelings,
        "indices": some.indices,
        "hashes": np.array(some.hashes()),
        **{name: np.ones(2) for name in ("taskness", "sem", "p_adjusted")},
    }
    write_npz(path, arrays)
    return path


def test_discovered_tasks_label_the_images_that_they_know(found: Path) -> None:
    tasks = auxiliary_tasks(str(found), images().resized(32), SPLIT, 0)
    read = load_tasks(found)
    assert [task.name for task in tasks] == read.names.tolist()
    places = images().indices.tolist()
    for task, labeling in zip(tasks, read.labelings, strict=True):
        expected = np.full(120, np.nan)
        for index, label in zip(read.indices.tolist(), labeling, strict=True):
            expected[places.index(index)] = label
        expected[SPLIT.test] = np.nan
        np.testing.assert_array_equal(task.labels[:, 0], expected)


def test_shuffled_labelings_have_the_same_images_and_ratio(found: Path) -> None:
    plain = auxiliary_tasks(str(found), images().resized(32), SPLIT, 0)
    for one, other in zip(
        plain, auxiliary_tasks(f"random:{found}", images().resized(32), SPLIT, 0), strict=True
    ):
        assert np.array_equal(one.known, other.known)
        assert np.nansum(one.labels) == np.nansum(other.labels)
        assert not np.array_equal(one.labels, other.labels, equal_nan=True)


def test_paths_are_absolute_and_know_their_content(
    found: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(found.parent)
    aux = resolved("tasks.npz")
    assert aux.startswith(f"{found}#") and resolved(aux) == aux
    assert resolved("random:tasks.npz") == f"random:{aux}"
    assert resolved("random:7") == "random:7"
    assert names_of(aux) == load_tasks(found).names.tolist()
    written(found, seed=1)
    with pytest.raises(RunFolderError, match="must be those that this was started with"):
        names_of(aux)


def test_a_path_may_hold_the_sign_before_the_content(found: Path) -> None:
    path = found.rename(found.parent / "tasks #2.npz")
    aux = resolved(str(path))
    assert names_of(aux) == names_of(str(path)) == load_tasks(path).names.tolist()
    assert resolved(aux) == aux


def test_tasks_of_other_images_are_refused(found: Path) -> None:
    others = images().resized(32).take(np.arange(50))
    with pytest.raises(SettingError, match="the images must hold all 60 that the tasks were found"):
        auxiliary_tasks(str(found), others, split_of(50, 0.2, 0.2, 0), 0)


def test_a_file_without_tasks_has_no_auxiliaries(found: Path) -> None:
    with np.load(found) as saved:
        none = {
            name: values[:0] if name not in ("indices", "hashes") else values
            for name, values in saved.items()
        }
    write_npz(found, none)
    with pytest.raises(RunFolderError, match="must be at least one to be auxiliaries, got none"):
        resolved(str(found))


@pytest.mark.parametrize("change", ["pixel", "less", "more"])
def test_tasks_of_another_version_of_the_images(found: Path, change: str) -> None:
    every = images().resized(32)
    known = [every.indices.tolist().index(i) for i in load_tasks(found).indices]
    if change == "pixel":
        pixels = every.images.copy()
        pixels[known[7], 3, 3] ^= 1
        other = replace(every, images=pixels)
    else:
        other = every.take(np.setdiff1d(np.arange(120), known[:1])) if change == "less" else every
    split = split_of(len(other), 0.2, 0.2, 0)
    if change == "more":  # those that they do not know have no label
        assert len(auxiliary_tasks(str(found), other, split, 0)) == 2
        return
    version = r" \(that of this index has other pixels: another version" * (change == "pixel")
    with pytest.raises(SettingError, match=f"all 60 .* got 1 of them not among .*{version}"):
        auxiliary_tasks(str(found), other, split, 0)
