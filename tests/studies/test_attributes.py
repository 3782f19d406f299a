"""Correlations of attributes: values known by hand, what is chosen by them, and what is said."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from drawn_faces import ATTRIBUTES, SOURCES_EIGHT, attributes, draw_faces

from taskdisc.config import read_settings, settings_from
from taskdisc.errors import ImageSetError, SettingError
from taskdisc.images import load_images
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies import STUDIES
from taskdisc.studies.attributes import (
    AttributesSettings,
    attributes_of,
    check,
    choose,
    phi,
    side_by_side,
)
from taskdisc.studies.multi_task import ComparisonSettings
from taskdisc.studies.run import new_study, run_study, study

CONFIGS = Path(__file__).parents[2] / "configs"
N = 80


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_faces(tmp_path_factory.mktemp("faces"), N)


def test_phi_of_four_fields() -> None:
    # 4 images with both, 1 with the first alone, 2 with the second alone, 3 with none
    first = np.repeat([1, 1, 0, 0], [4, 1, 2, 3]).astype(bool)
    second = np.repeat([1, 0, 1, 0], [4, 1, 2, 3]).astype(bool)
    columns = [first, second, first, ~first, np.ones(10, dtype=bool)]
    found = phi(np.stack(columns, axis=1))
    expected = (4 * 3 - 1 * 2) / np.sqrt(5 * 5 * 6 * 4)
    np.testing.assert_allclose(found[0, :4], [1, expected, 1, -1])
    assert np.isnan(found[4]).all() and np.isnan(found[:, 4]).all()


def test_phi_is_the_correlation_of_numpy() -> None:
    values = np.random.default_rng(0).random((50, 6)) < 0.3
    np.testing.assert_allclose(phi(values), np.corrcoef(values.T), atol=1e-9)


def matrix(n: int, pairs: dict[tuple[int, int], float], others: float) -> np.ndarray:
    found = np.full((n, n), others)
    for (i, j), value in pairs.items():
        found[i, j] = found[j, i] = value
    np.fill_diagonal(found, 1)
    return found


def test_least_takes_the_weakest_pair_then_the_smallest_largest() -> None:
    given = matrix(5, {(1, 3): 0.01, (0, 1): -0.2, (0, 3): 0.3, (4, 1): 0.0, (4, 3): 0.5}, 0.9)
    assert choose(given, 2, "least") == [1, 4]
    given[1, 4] = given[4, 1] = 0.05
    assert choose(given, 2, "least") == [1, 3]
    assert choose(given, 3, "least") == [1, 3, 0]
    # 4 is worse than 0 by its |φ| with 3 alone; then both are as bad, with those in between
    assert choose(given, 9, "least") == [1, 3, 0, 2, 4]


def test_most_takes_the_strongest_pair_then_the_largest_smallest() -> None:
    given = matrix(5, {(2, 4): -0.9, (0, 2): 0.8, (0, 4): 0.1, (1, 2): 0.5, (1, 4): -0.4}, 0.2)
    assert choose(given, 2, "most") == [2, 4]
    assert choose(given, 3, "most") == [2, 4, 1]


@pytest.mark.parametrize("by", ["least", "most"])
def test_of_equals_the_first_is_chosen(by: str) -> None:
    assert choose(matrix(6, {}, 0.25), 4, by) == [0, 1, 2, 3]


def test_the_greedy_step_is_what_it_says() -> None:
    rng = np.random.default_rng(1)
    given = phi(rng.random((40, 9)) < 0.5)
    chosen = choose(given, 9, "least")
    assert sorted(chosen) == list(range(9))
    pairs = {pair: abs(given[pair]) for pair in itertools.combinations(range(9), 2)}
    assert pairs[chosen[0], chosen[1]] == min(pairs.values())
    for n in range(2, 9):
        worst = {i: abs(given[i, chosen[:n]]).max() for i in range(9) if i not in chosen[:n]}
        assert worst[chosen[n]] == min(worst.values())


def test_correlated_attributes_stand_side_by_side() -> None:
    given = matrix(6, {(0, 3): 0.9, (1, 5): -0.8, (2, 4): 0.7}, 0.05)
    order = side_by_side(given)
    assert sorted(order) == list(range(6))
    for i, j in ((0, 3), (1, 5), (2, 4)):
        assert abs(order.index(i) - order.index(j)) == 1


def test_targets_of_two_classes_and_measures_are_attributes(faces: Path) -> None:
    images = load_images("celeba", root=faces, split="all")
    names, values = attributes_of(images, ["bright"])
    assert names == [*ATTRIBUTES, "bright"]
    assert np.array_equal(values[:, :40], attributes(N, np.random.default_rng(0)))
    brightness = images.images.mean(axis=(1, 2, 3))
    assert np.array_equal(values[:, 40], brightness > np.median(brightness))
    digits = load_images("digits")
    names, values = attributes_of(digits, ["red", "bright"])
    assert names == ["red", "bright"] and not values[:, 0].any() and 0 < values[:, 1].mean() < 1


def test_digits_have_four_attributes() -> None:
    answer = study("attributes", jobs=1)
    assert [row["attribute"] for row in answer.table] == [
        "bright", "rich in contrast", "bright above", "bright on the left",
    ]  # fmt: skip
    assert all(list(row) == list(answer.table[0]) for row in answer.table)
    assert "all images are alike in it: red, green, blue, saturated." in answer.reading
    assert "The 4 of 8 that were asked for, least correlated" in answer.reading
    assert "{kind: regression, of: bright}" in answer.texts[next(iter(answer.texts))]


def test_the_committed_settings_run_on_drawn_faces(faces: Path, tmp_path: Path) -> None:
    path = CONFIGS / "mtl" / "attributes.yaml"
    settings = read_settings(STUDIES["attributes"].settings, path, [f"images.root={faces}"])
    assert settings.given == tuple(SOURCES_EIGHT)
    folder = new_study("attributes", settings, tmp_path / "run", Pool(1, "cpu"), Progress())
    answer = run_study(folder, Pool(1, "cpu"), Progress())
    folder.close()
    known = attributes(N, np.random.default_rng(0))
    rates = dict(zip(ATTRIBUTES, known.mean(axis=0), strict=True))
    assert {row["attribute"]: row["share of images"] for row in answer.table} == pytest.approx(
        rates
    )
    correlations = np.corrcoef(known.T)
    for row in answer.tables["correlations"]:
        i, j = ATTRIBUTES.index(row["first"]), ATTRIBUTES.index(row["second"])
        assert row["phi"] == pytest.approx(correlations[i, j], abs=1e-9)
    right = 100 * np.mean([max(rates[name], 1 - rates[name]) for name in SOURCES_EIGHT])
    places = [ATTRIBUTES.index(name) for name in SOURCES_EIGHT]
    own = abs(correlations[np.ix_(places, places)])[np.triu_indices(8, 1)]
    assert (
        f"The 8 given: {', '.join(SOURCES_EIGHT)}; |φ| {own.mean():.3f} on average, "
        f"{own.max():.3f} at most; always guessing the more frequent answer is right in "
        f"{right:.2f} % of all cases." in answer.reading
    )
    chosen = sorted((int(row["chosen"]), row["attribute"]) for row in answer.table if row["chosen"])
    # What is to be pasted is a comparison's tasks.
    for text, names in zip(
        answer.texts.values(), ([name for _, name in chosen], SOURCES_EIGHT), strict=True
    ):
        tasks = settings_from(ComparisonSettings, yaml.safe_load(text)).tasks
        assert list(tasks) == names and {task.kind for task in tasks.values()} == {"binary"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert '<figure class="plot tall">' in page and "kind: binary, of: Young" in page
    assert (tmp_path / "run" / "correlations.csv").read_text().count("\n") == 1 + 40 * 39 // 2


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"measures": ["brigt"]}, SettingError, "`measures` must be .* 'bright'"),
        ({"k": 1}, SettingError, "`k` must be .* 2, got 1"),
        ({"by": "best"}, SettingError, "`by` must be one of least, most"),
        (
            {"measures": []},
            ImageSetError,
            "'digits' must have at least two attributes .* got 0 of 0",
        ),
        ({"measures": ["red", "bright"]}, ImageSetError, "at least two attributes .* got 1 of 2"),
        ({"given": ["red"]}, SettingError, "got 'red'; which all images are alike in; leave it"),
        ({"given": ["Brigt"]}, SettingError, "got 'Brigt'; did you mean 'bright'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        check(settings_from(AttributesSettings, settings))


def test_a_measure_with_the_name_of_a_target(faces: Path) -> None:
    images = load_images("celeba", root=faces, split="test")
    images.targets["bright"] = images.targets["Young"]
    images.classes["bright"] = ["dark", "bright"]
    with pytest.raises(SettingError, match="other names than the targets of 'celeba'"):
        attributes_of(images, ["bright"])
