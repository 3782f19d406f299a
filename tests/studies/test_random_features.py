from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from taskdisc.config import read_settings, settings_from
from taskdisc.errors import SettingError
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies import random_features
from taskdisc.studies.images import drawn
from taskdisc.studies.random_features import (
    RandomFeaturesSettings,
    answer,
    cells,
    enlarged,
    measure,
    random_maps,
    random_network,
)
from taskdisc.studies.run import measure_cells
from taskdisc.taskness.lenet import standardised
from taskdisc.taskness.score import score

SMALL: dict[str, Any] = {
    "images": {"n_classes": 3, "per_class": 5},
    "n_initialisations": 2,
    "n_labelings": 2,
    "n_seeds": 2,
    "protocol": {"n_splits": 5, "n_steps": 6, "most_images": 0},
}
POOL = Pool(1, "cpu")
CONFIGS = Path(__file__).parents[2] / "configs" / "studies"


def settings_with(**changes: Any) -> RandomFeaturesSettings:
    return settings_from(RandomFeaturesSettings, {**SMALL, **changes})


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    images = drawn(settings_with().images)
    return standardised(np.asarray(images.images))


def test_the_seed_alone_decides_the_network() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = random_network(8, 1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = random_network(8, 1), random_network(8, 2)
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        # Normalisation begins the same everywhere.
        assert a.ndim == 1 or not torch.equal(a, c)


@pytest.mark.parametrize("side", [16, 8, 4])
def test_maps_have_their_size_and_a_sane_scale(pixels: torch.Tensor, side: int) -> None:
    maps = random_maps(pixels, side, 0)
    assert maps.shape == (15, 3, side, side)
    assert 0.01 < maps.std() < 10
    # Different images have different maps.
    assert maps.std(dim=0).mean() > 0.1 * maps.std()


def test_batches_do_not_say_which_class_an_image_is_of(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    bright = torch.randn(12, 3, 32, 32, generator=generator)
    bright[:6] += 2
    bright[6:] -= 2
    monkeypatch.setattr(random_features, "BATCH", 6)
    maps = random_maps(bright, 8, 0)
    # Each class in a batch of its own would be brought to the same mean by the normalisation.
    gap = (maps[:6].mean(dim=(0, 2, 3)) - maps[6:].mean(dim=(0, 2, 3))).abs().max()
    assert gap > 0.3 * maps.std()


def test_enlarged_maps_are_standardised_like_pixels() -> None:
    maps = torch.rand(7, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 9 + 3
    maps[:, 2] = 5
    x = enlarged(maps)
    assert x.shape == (7, 3, 32, 32)
    torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    std = x.std(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(std, torch.tensor([1.0, 1.0, 0.0]), atol=1e-4, rtol=0)


def test_on_pixels_it_is_the_taskness_of_everywhere_else() -> None:
    settings = settings_with()
    record = measure(settings, {"seed": 1, "inputs": "pixels"}, POOL, Progress())
    images = drawn(settings.images, seed=1)
    labelings = np.eye(3, dtype=np.uint8).repeat(5, axis=1)[:2]
    scores = score(images, labelings, protocol=settings.protocol, seed=1, jobs=1, device="cpu")
    found = record["scores"]["pixels"]
    assert found["taskness"] == pytest.approx(scores.taskness.mean(), abs=1e-6)
    np.testing.assert_allclose(found["validation"], scores.validation.mean(axis=(0, 1)), atol=1e-5)
    assert record["baseline"] == pytest.approx(scores.baseline.mean(), abs=1e-5)
    assert len({record["scores"][name]["taskness"] for name in record["scores"]}) == 3


def test_the_ensemble_is_of_probabilities(
    monkeypatch: pytest.MonkeyPatch, pixels: torch.Tensor
) -> None:
    settings, cell = settings_with(), {"seed": 0, "inputs": 8}
    pair = [("initialisation 1", pixels), ("initialisation 2", pixels)]
    monkeypatch.setattr(random_features, "_inputs", lambda *arguments: pair)
    scores = measure(settings, cell, POOL, Progress())["scores"]
    assert scores["ensemble"]["taskness"] == pytest.approx(scores["initialisation 1"]["taskness"])
    pair[1] = ("initialisation 2", -pixels)
    scores = measure(settings, cell, POOL, Progress())["scores"]
    curves = {name: np.array(score["validation"]) for name, score in scores.items()}
    mean = (curves["initialisation 1"] + curves["initialisation 2"]) / 2
    # −log is convex: the mean probability is never worse than the mean loss.
    assert (curves["ensemble"] <= mean + 1e-5).all()
    assert (curves["ensemble"] < mean - 1e-4).any()


def test_all_cells_make_an_answer_whose_rows_are_alike() -> None:
    settings = settings_with()
    found = answer(settings, measure_cells("random-features", settings, POOL, Progress()))
    assert [row["output"] for row in found.table] == ["3×8×8"] * 6 + ["3×4×4"] * 6
    assert [row["inputs"] for row in found.table][-3:] == [
        "ensemble",
        "averaged pixels",
        "pixels",
    ]
    assert all(list(row) == list(found.table[0]) for row in found.table)
    rows = {(row["output"], row["inputs"]): row for row in found.table}
    assert rows["3×8×8", "pixels"]["minus_pixels"] == 0
    members = [rows["3×8×8", f"initialisation {i}"]["taskness"] for i in (1, 2)]
    mean = rows["3×8×8", "mean of initialisations"]["taskness"]
    assert mean == pytest.approx(np.mean(members))


def made_up(taskness: dict[str, tuple[float, float]]) -> list[dict[str, Any]]:
    def scores(names: tuple[str, ...], number: int) -> dict[str, Any]:
        return {
            name: {"taskness": taskness[name][number], "validation": [0.7, 0.5]} for name in names
        }

    return [
        {"seed": number, "inputs": inputs, "scores": scores(names, number), "baseline": 0.5}
        for number in (0, 1)
        for inputs, names in {
            8: ("initialisation 1", "initialisation 2", "ensemble"),
            "pixels": ("pixels", "averaged pixels 8"),
        }.items()
    ]


def test_differences_are_paired_and_the_reading_follows_them() -> None:
    settings = settings_with(outputs=[8])
    taskness = {
        "initialisation 1": (0.2, 0.4),
        "initialisation 2": (0.2, 0.4),
        "ensemble": (0.4, 0.5),
        "pixels": (0.5, 0.72),
        "averaged pixels 8": (0.1, 0.2),
    }
    unsure = "(which 95 % intervals do not tell from 0)"
    reading = answer(settings, made_up(taskness)).reading
    assert "it is 0.300 ± 0.100, 0.310 ± 0.010 lower than on pixels" in reading
    assert f"0.150 ± 0.050 higher {unsure} than on pixels averaged to 8×8" in reading
    assert f"0.150 ± 0.050 higher {unsure} than for the mean of its members" in reading
    taskness["pixels"] = (0.0, 0.19)
    reading = answer(settings, made_up(taskness)).reading
    assert "it is 0.300 ± 0.100, 0.205 ± 0.005 higher than on pixels" in reading
    taskness["pixels"] = (0.1, 0.4)
    reading = answer(settings, made_up(taskness)).reading
    assert f"0.050 ± 0.050 higher {unsure} than on pixels, and" in reading


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_labelings": 4}, "`n_labelings` must be at most `images.n_classes` = 3, got 4"),
        ({"outputs": [8, 8]}, "`outputs` must be different sides"),
        ({"outputs": [7]}, "`outputs.0` must be"),
        ({"n_initialisations": 1}, "`n_initialisations`"),
        ({"images": {"n_classes": 4, "per_class": 2}}, "`images.per_class` must be at least"),
    ],
)
def test_bad_settings(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        cells(settings_with(**changes))


def test_committed_settings_are_valid() -> None:
    digits = read_settings(RandomFeaturesSettings, CONFIGS / "random-features-digits.yaml")
    assert digits == RandomFeaturesSettings()
    settings = read_settings(RandomFeaturesSettings, CONFIGS / "random-features.yaml")
    assert len(cells(settings)) == 3 * settings.n_seeds
