import tracemalloc

import numpy as np
import pytest

from taskdisc.config import settings_from
from taskdisc.discovery.swaps import descend
from taskdisc.errors import ImageSetError
from taskdisc.images import as_image_set
from taskdisc.labelings import random_labelings
from taskdisc.studies.run import study
from taskdisc.studies.scale import ScaleSettings
from taskdisc.taskness.closed_form import LowRank, closed_form_taskness, memory, quadratic
from taskdisc.taskness.kernels import Rbf


@pytest.fixture(scope="module")
def low_rank() -> LowRank:
    points = np.random.default_rng(0).standard_normal((400, 5)).astype(np.float32)
    return LowRank(Rbf(points), 400, 1.0, np.arange(0, 400, 10))


def test_blocks_improve_every_labeling_and_keep_its_positives(low_rank: LowRank) -> None:
    starts = random_labelings(6, 400, 80, np.random.default_rng(1))
    ends = descend(low_rank, starts)
    assert (ends.sum(axis=1) == 80).all()
    gain = closed_form_taskness(low_rank, ends) - closed_form_taskness(low_rank, starts)
    assert gain.min() > 0.1
    # No single swap of the most promising images is left.
    again = descend(low_rank, ends)
    assert np.array_equal(again, ends)


@pytest.mark.parametrize("ratio", [1, 4])
def test_a_firm_penalty_leaves_about_the_share_in_common(low_rank: LowRank, ratio: int) -> None:
    n_pos = 400 // (ratio + 1)
    starts = random_labelings(5, 400, n_pos, np.random.default_rng(2))
    away = descend(low_rank, starts[:1])
    ends = descend(low_rank, starts[1:], away, 1000.0, 0.15)
    common = ends @ away[0].astype(int) / n_pos
    np.testing.assert_allclose(common, 0.5 if ratio == 1 else 0.15, atol=0.02)


@pytest.mark.parametrize(("n_images", "rank"), [(1200, 0), (3000, 200)])
def test_stated_memory_is_what_setting_up_takes(n_images: int, rank: int) -> None:
    rng = np.random.default_rng(3)
    images = as_image_set(rng.integers(0, 256, (n_images, 32, 32, 3)).astype(np.uint8))
    # Arrays of numpy are traced, tensors are not: so without the copy in standardising the pixels.
    quadratic(images.take(np.arange(10)), kernel="linear")
    tracemalloc.start()
    try:
        quadratic(images, kernel="linear", rank=rank)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert memory(n_images, "linear", rank) / 2.5 < peak < 1.5 * memory(n_images, "linear", rank)


def test_the_study_measures_each_size_in_a_process_of_its_own() -> None:
    search = {"tasks": 2, "budget": 20, "closed_form": {"kernel": "rbf"}}
    answer = study("scale", jobs=1, n_images=[20, 40], search=search)
    assert [row["n_images"] for row in answer.table] == [20, 40]
    for row in answer.table:
        assert 1 <= row["put_forward"] <= 2
        assert row["memory_gb"] > 0 < row["stated_gb"] + 0.001
        assert row["set_up_s"] >= 0 and row["search_s"] >= 0 and row["cpu_s"] > 0
    assert list(answer.plots) == ["scale"]
    assert "40 images" in answer.reading


def test_a_size_that_does_not_fit_is_refused_before_it_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from taskdisc.studies import scale

    monkeypatch.setattr("os.sysconf", lambda name: 1024)  # a machine of one megabyte
    with pytest.raises(ImageSetError, match="must fit in memory"):
        scale._measured(settings_from(ScaleSettings, {}), 500)
