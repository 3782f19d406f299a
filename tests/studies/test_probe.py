"""Linear probes of backbones that tasks have trained: what trains, what is seen, what is said."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from taskdisc.config import read_settings, settings_from
from taskdisc.errors import ImageSetError, SettingError
from taskdisc.files import write_npz
from taskdisc.images import ImageSet
from taskdisc.mtl.train import _Saving, backbone_features, module_of
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies import linear_probe
from taskdisc.studies.linear_probe import CS, probe, standardised
from taskdisc.studies.multi_task import images_of
from taskdisc.studies.probe import (
    ProbeSettings,
    cells,
    check,
    drawn_of,
    measure,
    pretext_of,
)
from taskdisc.studies.probe_answer import ROTATION, UNTRAINED, answer_of
from taskdisc.studies.run import new_study, open_study, run_study
from taskdisc.studies.study import Record

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "mtl"

SMALL: dict[str, Any] = {
    "images": {"n_images": 250, "size": 16},
    "labelled": [10, 40],
    "sources": {"random": "random:8", "classes": "classes:8"},
    "common": {"training": {"epochs": 12, "batch": 25, "lr": 0.004}},
    "seeds": 1,
}
QUICK = {**SMALL, "common": {"training": {"epochs": 2, "batch": 50}}}


def settings_of(**values: Any) -> ProbeSettings:
    """Settings from nested values."""
    return settings_from(ProbeSettings, values)


def test_the_default_is_the_file_of_it() -> None:
    assert read_settings(ProbeSettings, CONFIGS / "probe-digits.yaml") == settings_of()
    changed = read_settings(ProbeSettings, changes=["sources.more=random:3"])
    assert changed.sources == {**settings_of().sources, "more": "random:3"}


@pytest.mark.usefixtures("benefit_tasks")
def test_the_other_file_has_the_tasks_of_the_benefit() -> None:
    settings = read_settings(ProbeSettings, CONFIGS / "probe.yaml")
    names = ["random", "pixels", "random features", "tangent", "human"]
    assert list(settings.sources) == names
    assert settings.sources["random"].partition(":")[2] == settings.sources["random features"]
    assert len(cells(settings)) == 5 * (2 + len(names))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"labelled": []}, "`labelled` must have at least 1 "),
        ({"labelled": [1]}, "`labelled.0` must be greater than or equal to 2, got 1"),
        ({"labelled": [50, 20]}, "`labelled` must be different numbers of images, from few to"),
        ({"labelled": [20, 20]}, "`labelled` must be different numbers of images, from few to"),
        ({"labelled": [20, 2000]}, "`labelled` of task 'digit' must be at most the 125 training"),
        ({"of": "digits"}, "`of` of task 'digits' must be a target of 'digits', got 'digits'; did"),
        ({"sources": {UNTRAINED: "random:2"}}, "other names than untrained and rotation"),
        ({"sources": {ROTATION: "random:2"}}, "which are always there, got 'rotation'; rename it"),
        ({"sources": {"a": "random"}}, "`aux` must be a run folder or file of tasks, random:NUMB"),
        ({"sources": {"a": "nowhere"}}, "got 'nowhere', where nothing is"),
        ({"sources": {"a": "classes:200"}}, "`aux` must ask for at most the 126 halves"),
        ({"common": {"aux": "random:2"}}, "`common.aux` must be left out, for one task trains"),
        ({"common": {"tasks": ["digit"]}}, "`common.tasks` must be left out"),
        ({"common": {"weighting": "pcgrad"}}, "`common.weighting` must be left out, .* 'pcgrad'"),
        ({"common": {"architecture": "mtan"}}, "`common.architecture` must be left out, .* 'mtan'"),
        (
            {"common": {"training": {"main_share": 0.5}}},
            "`common.training.main_share` must be left out, for the main task trains no backbone",
        ),
        (
            {"common": {"training": {"head_lr": {"digit": 2}}}},
            "`common.training.head_lr` must be left out",
        ),
        (
            {"common": {"backbone": {"name": "lenet", "mode": "whole", "weights": "x"}}},
            "`common.backbone.mode` must be left out, for every backbone is trained from its begi",
        ),
        ({"common": {"backbone": "lenett"}}, "the backbone must be a known one, got 'lenett'; did"),
        ({"images": {"size": 8}}, "images must be at least 16 x 16 pixels for backbone 'lenet'"),
        ({"test": 0.95, "validation": 0.05}, "there must be images to train on"),
        ({"seeds": 0}, "`seeds` must be greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises((SettingError, ImageSetError), match=message) as caught:
        check(settings_of(**{**SMALL, **values}))
    assert "\n" not in str(caught.value)


def test_only_square_images_can_be_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskdisc.studies.probe.images_of", oblong)
    with pytest.raises(ImageSetError, match=r"must be square, .* got 16 x 20 pixels; set `images"):
        check(settings_of(**SMALL))


def oblong(*_: object) -> tuple[ImageSet, int]:
    """Images that are wider than high."""
    found, n_test = images_of(settings_of(**SMALL).images, None)
    wide = np.concatenate([found.images, found.images[:, :, :4]], axis=2)
    return ImageSet("wide", wide, found.targets, found.classes), n_test


# ---- what is trained --------------------------------------------------------------------------


def test_turned_images_have_their_number_of_quarter_turns_and_none_is_for_the_test() -> None:
    settings = settings_of(**SMALL)
    drawn = drawn_of(settings, 0)
    pretext = pretext_of(settings, ROTATION, drawn, 0)
    n, n_train = 150, len(drawn.split.train)
    assert len(pretext.images) == 4 * n and pretext.task.n_outputs == 4
    assert pretext.row.training.batch == 4 * settings.common.training.batch
    seen = np.concatenate([drawn.split.train, drawn.split.validation])
    expected = drawn.images.images[seen]
    for turn in range(4):
        part = slice(turn * n, (turn + 1) * n)
        np.testing.assert_array_equal(pretext.images[part], expected)
        assert (pretext.task.labels[part] == turn).all()
        # One more quarter: columns become rows, the last of them the first.
        expected = expected.transpose(0, 2, 1, 3)[:, ::-1]
    # All copies of an image are on the same side.
    assert (pretext.split.train % n < n_train).all() and len(pretext.split.train) == 4 * n_train
    assert (pretext.split.validation % n >= n_train).all()
    np.testing.assert_array_equal(pretext.split.test, pretext.split.validation)


@pytest.mark.parametrize("source", ["random", "classes"])
def test_tasks_know_no_test_image_and_are_not_tested_on_one(source: str) -> None:
    settings = settings_of(**SMALL)
    drawn = drawn_of(settings, 0)
    _, task, split, row = pretext_of(settings, source, drawn, 0)
    assert task.kind == "multi-label" and task.n_outputs == 8
    assert not task.known[drawn.split.test].any() and row == settings.common
    np.testing.assert_array_equal(split.test, drawn.split.validation)


def test_labels_are_few_even_and_only_of_training_images() -> None:
    drawn = drawn_of(settings_of(**SMALL), 0)
    few, many = (np.flatnonzero(main.known[drawn.split.train]) for main in drawn.mains)
    assert len(few) == 10 and len(many) == 40 and set(few) < set(many)
    digits = drawn.images.targets["digit"][drawn.split.train]
    assert len(set(digits[few])) == 10
    assert (np.bincount(digits[many]) == 4).all()
    for main in drawn.mains:
        assert not main.known[drawn.split.validation].any()


def test_all_rows_of_a_seed_begin_with_the_weights_that_are_left_untrained() -> None:
    settings = settings_of(**SMALL)
    drawn = drawn_of(settings, 3)
    images = drawn.images.images
    kept = backbone_features(images, drawn.split.train, settings.common, 3, "cpu")
    assert kept.shape == (250, 84) and kept.dtype == np.float32
    at = np.arange(20)
    for source in ("random", "classes", ROTATION):
        shown, task, split, row = pretext_of(settings, source, drawn, 3)
        module = module_of(shown, [task], split, row, seed=3).eval()
        begun: Any = module.network
        positions = np.concatenate([drawn.split.train, drawn.split.validation])[at]
        here = at if source == ROTATION else positions
        features = begun.shared(module.prepared(torch_of(here))).detach().numpy()
        np.testing.assert_allclose(features, kept[positions], rtol=1e-4, atol=1e-5)
    other = backbone_features(images, drawn.split.train, settings.common, 4, "cpu")
    assert not np.allclose(other, kept, atol=1e-3)


def torch_of(positions: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(positions)


# ---- what is seen -----------------------------------------------------------------------------


class Seen(NamedTuple):
    """What a probe was given, and what it found."""

    features: np.ndarray
    labelled: np.ndarray
    found: linear_probe.Probed


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """All probes of a test."""
    noted: list[Seen] = []

    def noting(features: np.ndarray, labels: np.ndarray, labelled: np.ndarray, *rest: Any) -> Any:
        found = probe(features, labels, labelled, *rest)
        noted.append(Seen(features, labelled, found))
        return found

    monkeypatch.setattr(linear_probe, "probe", noting)
    return noted


def measured(folder: Path, source: str, **values: Any) -> Record:
    """One cell of the first seed."""
    settings, cell = settings_of(**{**QUICK, **values}), {"source": source, "seed": 0}
    return measure(settings, cell, Pool(1, "cpu"), Progress(), folder)


def test_test_labels_change_nothing_but_the_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[Seen]
) -> None:
    straight = measured(tmp_path / "straight", "classes")

    def permuted(*arguments: Any) -> tuple[ImageSet, int]:
        found, n_test = images_of(*arguments)
        test = drawn_of_untouched.split.test
        digits = found.targets["digit"].copy()
        digits[test] = np.random.default_rng(1).permutation(digits[test])
        return ImageSet("digits", found.images, {"digit": digits}, found.classes), n_test

    drawn_of_untouched = drawn_of(settings_of(**QUICK), 0)
    monkeypatch.setattr("taskdisc.studies.probe.images_of", permuted)
    other = measured(tmp_path / "other", "classes")
    for before, after in zip(seen[:2], seen[2:], strict=True):
        np.testing.assert_array_equal(before.features, after.features)
        np.testing.assert_array_equal(before.labelled, after.labelled)
        assert before.found.c == after.found.c
        assert after.found.accuracy < 0.3 < before.found.accuracy
    assert other["pretext"] == straight["pretext"]


def test_all_rows_of_a_seed_are_probed_by_the_same_images(tmp_path: Path, seen: list[Seen]) -> None:
    measured(tmp_path, UNTRAINED)
    measured(tmp_path, "random")
    untrained, trained = seen[:2], seen[2:]
    for one, other in zip(untrained, trained, strict=True):
        np.testing.assert_array_equal(one.labelled, other.labelled)
        assert not np.allclose(one.features, other.features)
    assert [len(one.labelled) for one in untrained] == [10, 40]
    assert [one.found.c for one in (untrained[0], trained[0])] == [1, 1]  # one image per class


def test_a_training_that_was_stopped_goes_on_to_the_same_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = measured(tmp_path / "straight", "random")

    class Stopped(Exception):
        pass

    saved = _Saving.on_train_epoch_end

    def stopping(*arguments: Any) -> None:
        saved(*arguments)
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(_Saving, "on_train_epoch_end", stopping)
        with pytest.raises(Stopped):
            measured(tmp_path / "torn", "random")
    assert (tmp_path / "torn" / "last.ckpt").exists()
    again = measured(tmp_path / "torn", "random")
    assert {**again, "seconds": 0} == {**straight, "seconds": 0}
    assert not (tmp_path / "torn" / "last.ckpt").exists()


def test_tasks_from_which_nothing_is_learned_are_refused(tmp_path: Path) -> None:
    images, _ = images_of(settings_of(**QUICK).images, None)
    seen = images.resized(32)
    arrays = {
        "labelings": np.zeros((1, len(seen)), dtype=np.uint8),
        "indices": seen.indices,
        "hashes": np.array(seen.hashes()),
        **{name: np.ones(1) for name in ("taskness", "sem", "p_adjusted")},
    }
    write_npz(tmp_path / "all-no.npz", arrays)
    settings = settings_of(**{**QUICK, "sources": {"x": str(tmp_path / "all-no.npz")}})
    with pytest.raises(SettingError, match="auxiliary task 'labeling-1' must have two labels"):
        check(settings)


# ---- the probe --------------------------------------------------------------------------------


def blobs(spread: float) -> tuple[np.ndarray, np.ndarray]:
    """300 points of three classes around corners, [300, 5] and their classes."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(300) % 3
    return np.eye(5)[labels] + spread * rng.standard_normal((300, 5)), labels


def first_of_each(labels: np.ndarray, n: int) -> np.ndarray:
    """The first `n` positions of each of three classes, [3 n]."""
    return np.argsort(labels, kind="stable").reshape(3, 100)[:, :n].ravel()


def test_a_probe_tells_what_is_apart_and_not_what_is_noise() -> None:
    features, labels = blobs(0.05)
    labelled = first_of_each(labels, 10)
    test = np.setdiff1d(np.arange(300), labelled)
    assert probe(features, labels, labelled, test, 0) == (1.0, CS[0])  # of equals the strongest
    noise = np.random.default_rng(1).standard_normal((300, 5))
    assert probe(noise, labels, labelled, test, 0).accuracy < 0.45


@pytest.mark.parametrize(("n", "n_folds"), [(9, 3), (60, 5)])
def test_the_penalty_is_what_a_plain_cross_validation_chooses(n: int, n_folds: int) -> None:
    features, labels = blobs(0.6)
    order = first_of_each(labels, n // 3)
    known, classes = features[order], labels[order]
    folds = list(StratifiedKFold(n_folds, shuffle=True, random_state=5).split(known, classes))
    means = [
        np.mean(
            [
                LogisticRegression(C=c, max_iter=2000)
                .fit(known[fit], classes[fit])
                .score(known[held], classes[held])
                for fit, held in folds
            ]
        )
        for c in CS
    ]
    test = np.setdiff1d(np.arange(300), order)
    found = probe(features, labels, order, test, 5)
    best = CS[int(np.argmax(means))]
    assert found.c == best
    whole = LogisticRegression(C=best, max_iter=2000).fit(known, classes)
    assert found.accuracy == pytest.approx(np.mean(whole.predict(features[test]) == labels[test]))


def test_one_image_per_class_leaves_no_choice() -> None:
    features, labels = blobs(0.05)
    assert probe(features, labels, first_of_each(labels, 1), np.arange(300), 0).c == 1


def test_features_are_brought_to_the_training_images() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(5, 3, (40, 3)).astype(np.float32)
    features[:30, 2] = 0.1
    found = standardised(features, np.arange(30))
    np.testing.assert_allclose(found[:30, :2].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(found[:30, :2].std(axis=0), 1)
    np.testing.assert_allclose(found[:30, 2], 0, atol=1e-6)
    np.testing.assert_allclose(found[30:, 2], features[30:, 2] - 0.1, atol=1e-5)


# ---- what is said -----------------------------------------------------------------------------


def record(source: str, seed: int, few: float, many: float) -> Record:
    """A row's record with these accuracies."""
    known = {"loss": 0.5, "accuracy": 0.75} if source != UNTRAINED else {}
    probes = [
        {"labelled": n, "accuracy": value, "c": c}
        for n, value, c in ((10, few, 1.0), (40, many, 10.0**seed))
    ]
    return {
        "source": source, "seed": seed, "pretext": known, "blind": known, "epoch": 12,
        "seconds": 2.0, "probes": probes, "n_test": 100, "n_features": 84,
    }  # fmt: skip


def records() -> list[Record]:
    """Three seeds: classes help, rotation helps in the mean alone, random labelings hurt."""
    found = []
    for seed, (level, luck) in enumerate(((0.4, 0.3), (0.5, -0.1), (0.6, 0.1))):
        found += [
            record(ROTATION, seed, level + luck, 0.8),
            record("random", seed, level - 0.1 - 0.001 * seed, 0.7 - 0.001 * seed),
            record("classes", seed, level + 0.2 + 0.001 * seed, 0.9),
            record(UNTRAINED, seed, level, 0.8),
        ]
    return found


def test_gains_are_paired_by_seed() -> None:
    found = answer_of(settings_of(**{**SMALL, "seeds": 3}), records())
    assert [(line["labelled"], line["source"]) for line in found.table] == [
        (n, name) for n in (10, 40) for name in (UNTRAINED, ROTATION, "random", "classes")
    ]
    untrained, rotation, random, classes = found.table[:4]
    assert untrained["accuracy"] == pytest.approx(0.5)
    assert untrained["s.e."] == pytest.approx(0.1 / 3**0.5)
    assert untrained["gain on untrained"] is None and untrained["pretext"] is None
    assert classes["gain on untrained"] == pytest.approx(0.201)
    # Student's t with two degrees of freedom.
    assert classes["gain on untrained: from"] == pytest.approx(0.201 - 4.302653 * 0.001 / 3**0.5)
    assert classes["gain on random"] == pytest.approx(0.302)
    assert random["gain on random"] is None
    assert rotation["gain on untrained"] == pytest.approx(0.1)
    assert found.table[4]["C"] == 10 and rotation["pretext"] == pytest.approx(0.75)
    assert len(found.tables["seeds"]) == 24
    assert {"linear probe", ROTATION, "lenet"} == set(found.papers)


def test_the_reading_says_which_rows_differ() -> None:
    reading = answer_of(settings_of(**{**SMALL, "seeds": 3}), records()).reading
    assert "With 10 labels an untrained backbone gives 0.500 ± 0.058." in reading
    assert (
        "Against 'untrained', better: 'classes' +0.201 (+0.199 to +0.203); worse: 'random' -0.101"
    ) in reading
    assert "not told apart: 'rotation' +0.100 (-0.397 to +0.597)." in reading
    assert "Against 'random', better: 'untrained' +0.101" in reading
    assert "'classes' had the classes of all training images" in reading
    plain = {**SMALL, "sources": {"noise": "random:8"}, "seeds": 1}
    few = [{**r, "source": r["source"].replace("random", "noise")} for r in records()]
    known = [r for r in few if r["seed"] == 0 and r["source"] != "classes"]
    one = answer_of(settings_of(**plain), known)
    assert "nan" not in one.reading and "inf" not in one.reading
    assert "Against 'random'" not in one.reading and "had the classes" not in one.reading
    assert "A single seed has no spread" in one.reading


def test_classes_teach_more_than_random_labelings_and_a_torn_study_goes_on(
    tmp_path: Path,
) -> None:
    settings = settings_of(**SMALL)
    straight, torn = tmp_path / "straight", tmp_path / "torn"
    folder = new_study("probe", settings, straight, Pool(1, "cpu"), Progress())
    whole = run_study(folder, Pool(1, "cpu"), Progress())
    folder.close()
    accuracy = {(line["labelled"], line["source"]): line["accuracy"] for line in whole.table}
    assert accuracy[10, "classes"] > accuracy[10, "random"] + 0.1
    assert accuracy[40, "classes"] > accuracy[40, "random"]
    pretext = {line["source"]: line["pretext"] for line in whole.table}
    assert pretext["classes"] > 0.75 > 0.6 > pretext["random"]  # noise cannot be predicted
    page = (straight / "report.html").read_text()
    assert "Predicting Image Rotations" in page and "Linear Classifier Probes" in page
    assert (straight / "accuracy.png").exists()
    table = (straight / "table.md").read_text().splitlines()
    assert table[0].startswith("| labelled | source | accuracy | gain on untrained [95 %] |")

    folder = new_study("probe", settings, torn, Pool(1, "cpu"), Progress())
    folder.close()
    lines = (straight / "cells.jsonl").read_text().splitlines(keepends=True)
    (torn / "cells.jsonl").write_text("".join(lines[:3]) + lines[3][:20])
    folder = open_study(torn, Progress())
    again = run_study(folder, Pool(1, "cpu"), Progress())
    folder.close()
    assert again.table == whole.table  # only the untrained one was measured again
    assert json.loads((torn / "environment.json").read_text())["made_by"] == "study probe"
