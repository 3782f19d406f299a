import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskdisc.config import read_settings, settings_from
from taskdisc.errors import SettingError
from taskdisc.labelings import ablation, random_labelings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.clustering import (
    PUBLISHED,
    ClusteringSettings,
    ablation_of_nearest,
    ablations_to,
    cells,
    chance,
    cluster_means,
    k_means,
    measure,
    n_possible,
)
from taskdisc.studies.run import measure_cells
from taskdisc.studies.study import Cell

POOL = Pool(1, "cpu")
CONFIGS = Path(__file__).parents[2] / "configs" / "studies"


def measured(**changes: Any) -> dict[str, Any]:
    cell: Cell = {
        "n_images": 20,
        "ratio": 4,
        "n_clusters": 150,
        "n_labelings": 1000,
        "algorithm": "k-means",
        "seed": 0,
    }
    return measure(ClusteringSettings(), {**cell, **changes}, POOL, Progress())


@pytest.mark.parametrize("n_labelings", [1_000, 2_000, 3_000, 5_000])
def test_the_published_table(n_labelings: int) -> None:
    published = PUBLISHED[20, 4, 150][n_labelings]
    found = measured(n_labelings=n_labelings)["mean_cluster_ablation"]
    assert found == pytest.approx(published, abs=1.5)


def test_as_many_clusters_as_labelings_leave_no_distance() -> None:
    every = measured(n_images=10, n_clusters=45, n_labelings=2000)
    assert every["n_distinct"] == every["n_found"] == 45
    assert every["mean_cluster_ablation"] == every["fresh_ablation"] == 0


def test_one_cluster_is_as_far_as_chance() -> None:
    one = measured(n_clusters=1, n_labelings=5000)
    assert one["mean_cluster_ablation"] == one["mean_member_ablation"]
    assert one["fresh_ablation"] == pytest.approx(80, abs=2)
    assert one["drawn_ablation"] == pytest.approx(80, abs=2)


def test_fresh_labelings_are_farther_where_not_all_are_clustered() -> None:
    few = measured(n_labelings=500)
    all_of_them = measured(n_labelings=50_000)
    assert all_of_them["n_distinct"] == n_possible(20, 4) == 4845
    assert 20 < all_of_them["fresh_ablation"] < all_of_them["mean_member_ablation"] + 0.5
    assert few["fresh_ablation"] > few["mean_member_ablation"] + 5


def test_counting_labelings_is_clustering_them_all() -> None:
    def of(labelings: np.ndarray, counts: np.ndarray, seed: int) -> float:
        model = k_means(labelings, counts, 20, seed)
        centroids = np.zeros((20, 12), dtype=np.uint8)
        best = np.argsort(-model.cluster_centers_, axis=1, kind="stable")[:, :3]
        np.put_along_axis(centroids, best, 1, axis=1)
        away = ablations_to(labelings, centroids[model.labels_])
        return float(cluster_means(away, counts, model.labels_).mean())

    labelings = random_labelings(2000, 12, 3, np.random.default_rng(0))
    distinct, counts = np.unique(labelings, axis=0, return_counts=True)
    every = [of(labelings, np.ones(2000), seed) for seed in range(8)]
    counted = [of(distinct, counts, seed) for seed in range(8)]
    spread = np.hypot(np.std(every), np.std(counted)) / 8**0.5
    assert abs(np.mean(every) - np.mean(counted)) < 3 * spread + 1e-3


def test_mean_shift_falls_into_one_cluster_or_none() -> None:
    wide = measured(algorithm="mean-shift 0.3", n_clusters=0, n_labelings=200)
    assert wide["n_found"] == 1
    narrow = measured(algorithm="mean-shift 0.001", n_clusters=0, n_labelings=200)
    assert narrow["n_found"] == narrow["n_distinct"]
    assert narrow["mean_cluster_ablation"] == 0


@pytest.mark.parametrize(("n_images", "ratio"), [(10, 1), (20, 4)])
def test_chance_is_the_mean_of_random_pairs(n_images: int, ratio: int) -> None:
    n_pos = n_images // (ratio + 1)
    a, b = random_labelings(4000, n_images, n_pos, np.random.default_rng(0)).reshape(
        2, 2000, n_images
    )
    one_by_one = [ablation(x, y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(ablations_to(a, b), one_by_one)
    assert chance(n_images, ratio) == pytest.approx(100 * np.mean(one_by_one), abs=1.5)
    if ratio > 1:
        assert chance(n_images, ratio) == pytest.approx(100 * (1 - 1 / (ratio + 1)))


def test_the_nearest_is_found() -> None:
    labelings = random_labelings(100, 10, 5, np.random.default_rng(0))
    others = random_labelings(30, 10, 5, np.random.default_rng(1))
    nearest = [min(ablation(a, b) for b in others) for a in labelings]
    found = ablation_of_nearest(labelings, others)
    assert found == pytest.approx(np.mean(nearest), abs=1e-6)


def test_means_of_clusters_weigh_members_by_their_count_and_skip_the_empty() -> None:
    values, counts = np.array([0.0, 1.0, 0.5]), np.array([3, 1, 7])
    assert cluster_means(values, counts, np.array([0, 0, 2])).tolist() == [0.25, 0.5]


def test_the_answer_has_a_row_per_case_and_says_what_the_numbers_say() -> None:
    case = {"n_images": 10, "ratio": 4, "n_clusters": 45, "n_labelings": [2000, 50]}
    far = {"n_images": 100, "ratio": 4, "n_clusters": 5, "n_labelings": [50]}
    settings = settings_from(
        ClusteringSettings,
        {"cases": [case, far], "n_seeds": 2, "mean_shift": {"most_labelings": 50}},
    )
    from taskdisc.studies.clustering import answer

    told = answer(settings, measure_cells("clustering", settings, POOL, Progress()))
    assert list(told.table[0])[:5] == [
        "n_images",
        "ratio",
        "n_clusters",
        "n_labelings",
        "mean_cluster_ablation",
    ]
    rows = {(row["n_images"], row["algorithm"], row["n_labelings"]): row for row in told.table}
    assert len(rows) == len(told.table) == 2 + 2 + 1 + 2
    assert rows[10, "k-means", 2000]["mean_cluster_ablation"] == 0
    assert all(row["n_seeds"] == 2 for row in told.table)
    near, other = told.reading.split(" 100 images at 1:4: ")
    assert "0.0 ± 0.0 % from the nearest centroid, which is clearly better than" in near
    assert re.search(r"[67][0-9]\.[0-9] ± .* from the nearest centroid", other)
    assert "Mean-shift finds " in other and "where two labelings are 80 % apart" in other
    assert list(told.plots) == ["clustering"]


def test_cells_are_those_of_any_order_and_the_longest_come_first() -> None:
    settings = ClusteringSettings()
    named = cells(settings)
    assert len({tuple(cell.items()) for cell in named}) == len(named)
    k_means_cells = [cell for cell in named if cell["algorithm"] == "k-means"]
    assert (k_means_cells[0]["n_images"], k_means_cells[0]["n_labelings"]) == (100, 5000)
    assert {cell["seed"] for cell in named} == {0, 1, 2}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cases": [{"n_images": 21}]}, "multiple of `ratio`"),
        ({"cases": [{"n_clusters": 600}]}, "`n_clusters` must be at most .* 500 here .*got 600"),
        ({"cases": [{"n_images": 10}]}, "10 images have 45 different ones at 1:4"),
        ({"cases": [{"n_labelings": [0]}]}, "`n_clusters` must be at most"),
        ({"cases": []}, "`cases`"),
        ({"mean_shift": {"quantiles": [0]}}, "`mean_shift.quantiles` must be shares"),
        ({"n_seeds": 1}, "`n_seeds`"),
        ({"images": {"source": "digits"}}, "`images` is not a setting"),
    ],
)
def test_bad_settings(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        settings_from(ClusteringSettings, values)


def test_the_small_configuration_is_the_default() -> None:
    read: Callable[[str], ClusteringSettings] = lambda name: read_settings(  # noqa: E731
        ClusteringSettings, CONFIGS / name
    )
    assert read("clustering-small.yaml") == ClusteringSettings()
    assert read("clustering.yaml").cases[0].n_labelings == tuple(PUBLISHED[20, 4, 150])
