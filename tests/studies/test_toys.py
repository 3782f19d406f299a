"""The studies of two tasks whose losses are formulas."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from taskdisc.config import dump_settings, read_settings, settings_from
from taskdisc.errors import SettingError
from taskdisc.mtl.weightings import WEIGHTINGS
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies import STUDIES
from taskdisc.studies.gradient_cosine import GradientCosineSettings
from taskdisc.studies.gradient_cosine_toy import CosineToySettings
from taskdisc.studies.run import new_study, run_study, study
from taskdisc.studies.toy_valley import ToyValleySettings, distances, pareto_set
from taskdisc.studies.toys import descend, parabolas, step_at, valley
from taskdisc.studies.weighted import MOST_PLACES, Weighted, thinned

TWO_TASKS = [name for name, row in WEIGHTINGS.items() if row.least_tasks(row.defaults) <= 2]


def made(name: str, **settings: Any) -> Any:
    return Weighted.model_validate({"name": name, **settings}).made(0)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("gradient-cosine", {}),
        ("gradient-cosine-toy", {"weightings": ["equal"], "starts": [[-2, 1.5]], "n_steps": 5}),
        ("toy-valley", {"weightings": ["equal"], "starts": [[0, 0]], "n_steps": 5}),
    ],
)
def test_the_page_explains_what_the_study_shows(
    name: str, values: dict[str, Any], tmp_path: Path
) -> None:
    settings = settings_from(STUDIES[name].settings, values)
    folder = new_study(name, settings, tmp_path / "a", Pool(1), Progress())
    shown = run_study(folder, Pool(1), Progress()).table[0]
    folder.close()
    page = (tmp_path / "a" / "report.html").read_text()
    for word in ("taskness", "T_task", "Standard error"):
        assert word not in page
    for words in STUDIES[name].words:
        assert f"<dt>{words}</dt>" in page
        if words not in ("θ", "main, auxiliary", "Pareto front", "single task"):
            columns = [word.replace(" ", "_") for word in words.split(", ")]
            assert all(any(column in key for key in shown) for column in columns), words


def test_gradients_agree_but_between_the_minima() -> None:
    answer = study("gradient-cosine", jobs=1)
    assert len(answer.table) == 101 and list(answer.plots) == ["gradient-cosine"]
    for row in answer.table:
        theta = row["theta"]
        assert row["main_loss"] == pytest.approx((theta - 10) ** 2)
        assert row["auxiliary_gradient"] == pytest.approx(2 * theta)
        expected = 0 if theta in (0, 10) else -1 if 0 < theta < 10 else 1
        assert row["cosine"] == expected
    assert "is −1 at the 19 θ between their minima and +1 at the 80 outside" in answer.reading


def test_other_minima_move_where_they_oppose() -> None:
    table = study("gradient-cosine", jobs=1, main=-4.0, auxiliary=2.5, n_points=300).table
    assert all((row["cosine"] < 0) == (-4 < row["theta"] < 2.5) for row in table)


def test_steepest_descent_is_what_it_is_by_hand() -> None:
    losses = parabolas(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    places = descend(made("equal"), losses, (2.0, -1.0), n_steps=50, lr=0.1)
    # θ − (½, ½) shrinks by 1 − 4 lr in each step
    expected = 0.5 + torch.tensor([[1.5, -1.5]]) * 0.6 ** torch.arange(51)[:, None]
    assert_close(places, expected)
    stopped = descend(
        made("equal"), losses, (2.0, -1.0), n_steps=50, lr=0.1, until=lambda loss: bool(loss[0] < 1)
    )
    assert torch.equal(stopped, places[: len(stopped)])
    assert [bool(losses(place)[0] < 1) for place in stopped[-2:]] == [False, True]


def test_a_descent_ends_before_losses_are_infinite() -> None:
    losses = parabolas(torch.tensor([[0.0], [1.0]]))
    places = descend(made("equal"), losses, (3.0,), n_steps=500, lr=10.0)
    assert len(places) < 500 and losses(places).isfinite().all()


def test_a_step_knows_gradients_and_what_lies_ahead() -> None:
    losses, theta = valley(0.1), torch.tensor([2.0, -3.0])
    step = step_at(losses, theta, lr=0.5)
    assert_close(step.losses.detach(), losses(theta))
    by_difference = torch.stack(
        [
            (losses(theta.double() + shift) - losses(theta.double() - shift)) / 2e-4
            for shift in 1e-4 * torch.eye(2, dtype=torch.float64)
        ],
        dim=1,
    )
    assert_close(step.jacobian, by_difference.float(), atol=1e-3, rtol=1e-3)
    assert step.look_ahead is not None
    weights = torch.tensor([1.0, 2.0])
    there = step_at(losses, theta - 0.5 * weights @ step.jacobian)
    assert_close(step.look_ahead.gradient(weights), there.jacobian[0])


@pytest.mark.parametrize(
    ("theta", "expected"),
    [
        # bowls alone, c₂ = 1: (7, −8) is 0 and 196 / 10 above the lowest −20
        ((7.0, -30.0), [4.84 - 20, 19.6 + 4.84 - 20]),
        # neither valley nor bowl
        ((3.0, 0.0), [0.0, 0.0]),
        # valleys alone, c₁ = 1: |−10 / 2 + 1| and |0 − 1 + 2|
        ((3.0, 40.0), [float(np.log(4) + 6), 6.0]),
    ],
)
def test_the_valley_by_hand(theta: tuple[float, float], expected: list[float]) -> None:
    assert_close(valley()(torch.tensor(theta)), torch.tensor(expected))
    found = valley(0.1, 3.0)(torch.tensor([theta]))
    assert_close(found, torch.tensor([[0.1 * expected[0] + 3, expected[1] + 3]]))


def test_the_valley_can_be_left_where_its_halves_meet() -> None:
    # the slopes of both halves: log(3.5) + 6 = 2 · c₁′ f₁, and 14.46 = 20 − (49 + 6.4) / 10
    jacobian = step_at(valley(), torch.zeros(2)).jacobian
    assert_close(jacobian[0], torch.tensor([0.0, (np.log(3.5) + 6 + 14.46) / 2]).float())
    assert_close(jacobian[1], jacobian[0])


def test_nothing_is_better_for_both_tasks_than_the_front() -> None:
    front = pareto_set(201)
    assert front[:, 0].tolist() == pytest.approx(np.linspace(-7, 7, 201).tolist())
    losses = valley()
    of_front = losses(torch.from_numpy(front))
    # CAGrad's code draws the front at −8.3552, which is its middle
    assert front[100, 1] == pytest.approx(-8.3552, abs=1e-3)
    for i in range(0, 201, 20):
        jacobian = step_at(losses, torch.from_numpy(front[i])).jacobian
        weights = torch.tensor([i / 200, 1 - i / 200], dtype=jacobian.dtype)
        assert_close(weights @ jacobian, torch.zeros_like(weights), atol=1e-6, rtol=0)
    ticks = torch.linspace(-11, 11, 200, dtype=torch.float64)
    every = losses(torch.cartesian_prod(ticks, ticks))
    assert not (every[:, None, :] < of_front[None] - 1e-9).all(dim=-1).any()


def test_distances_to_the_front() -> None:
    middle = pareto_set(3)[1]
    end = pareto_set(2)[1]
    found = distances(np.array([middle, np.add(middle, (0, 2)), np.add(end, (3, 0))]))
    assert found == pytest.approx([0, 2, 3], abs=0.03)


@pytest.mark.parametrize("name", TWO_TASKS)
def test_any_weighting_of_two_tasks_can_descend(name: str) -> None:
    places = descend(
        made(name), valley(0.1, 21.0), (9.0, -1.0), n_steps=4, lr=0.02, optimiser=torch.optim.Adam
    )
    assert len(places) == 5


def test_learned_weights_are_trained() -> None:
    weighting = made("uncertainty")
    before = [value.clone() for value in weighting.parameters()]
    descend(weighting, valley(), (9.0, 9.0), n_steps=3, lr=0.01, own_lr=0.1)
    assert all(not torch.equal(a, b) for a, b in zip(before, weighting.parameters(), strict=True))


def test_the_study_of_the_valley_says_who_reaches_the_front() -> None:
    answer = study(
        "toy-valley",
        jobs=1,
        weightings=["imtl-g", {"name": "fixed", "weights": [0.0, 0.0]}],
        starts=[[0.0, -7.0], [6.0, -8.0]],
        n_steps=100,
    )
    assert [(row["weighting"], row["reached"]) for row in answer.table] == [
        ("imtl-g", "yes"),
        ("imtl-g", "yes"),
        ("fixed (weights = [0.0, 0.0])", "no"),
        ("fixed (weights = [0.0, 0.0])", "no"),
    ]
    stood = answer.table[-1]
    assert (stood["theta_1"], stood["theta_2"], stood["first_there"]) == (6, -8, None)
    assert "is reached by imtl-g; from some or none by fixed" in answer.reading
    assert "(not from (0, −7), (6, −8))" in answer.reading
    assert list(answer.plots) == ["toy-valley"]


def test_the_study_of_the_valley_says_who_leaves_the_finite() -> None:
    # FAMO takes logarithms of losses above `min_losses`
    given = ["famo", {"name": "famo", "min_losses": [-3.0, -21.0]}]
    answer = study("toy-valley", jobs=1, weightings=given, starts=[[9.0, -1.0]], n_steps=5)
    assert [row["n_steps"] for row in answer.table] == [1, 5]
    assert "; famo stopped where losses were no longer finite." in answer.reading


def test_long_ways_are_thinned() -> None:
    places = np.arange(20_000.0).reshape(-1, 2)
    kept = thinned(places)
    assert len(kept) == MOST_PLACES
    assert (kept[0], kept[-1]) == ([0, 1], [19_998, 19_999])
    assert thinned(places[:3]) == places[:3].tolist()


@pytest.mark.parametrize("name", ["gradient-cosine-toy", "toy-valley"])
def test_settings_survive_their_file(name: str, tmp_path: Path) -> None:
    kind = STUDIES[name].settings
    given = {"weightings": ["mgda", {"name": "cagrad", "c": 0.2}]}
    settings = settings_from(kind, given)
    (tmp_path / "config.yaml").write_text(dump_settings(settings))
    assert read_settings(kind, tmp_path / "config.yaml") == settings
    labels = {cell["weighting"] for cell in STUDIES[name].cells(settings)}
    assert {"mgda", "cagrad (c = 0.2)"} <= labels


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (GradientCosineSettings, {"low": 5, "high": 5}, "`low` must be below `high` = 5, got 5"),
        (GradientCosineSettings, {"n_points": 1}, "`n_points` must be"),
        (GradientCosineSettings, {"main": float("nan")}, "`main` must be a finite number"),
        (CosineToySettings, {"weightings": ["cosine"]}, "must be a known one, got 'cosine'"),
        (CosineToySettings, {"weightings": []}, "`weightings`"),
        (CosineToySettings, {"weightings": [3]}, "`weightings.0` must be a mapping"),
        (CosineToySettings, {"starts": []}, "`starts`"),
        (CosineToySettings, {"starts": [[1, 2, 3]]}, "`starts.0`"),
        (CosineToySettings, {"lr": 0}, "`lr` must be greater than 0"),
        (
            ToyValleySettings,
            {"weightings": [{"name": "cagrad", "C": 1}]},
            "`C` is not a setting of weighting 'cagrad'; did you mean 'c'",
        ),
        (
            ToyValleySettings,
            {"weightings": [{"name": "fixed", "weights": [1]}]},
            "`weights` of weighting 'fixed' must be a list of 2 numbers",
        ),
        (ToyValleySettings, {"weightings": ["krum"]}, "`n_tasks` must be at least 3"),
        (ToyValleySettings, {"scale": 0}, "`scale` must be greater than 0"),
        (ToyValleySettings, {"stride": 0}, "`stride`"),
    ],
)
def test_bad_settings(kind: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words) as caught:
        settings_from(kind, changes)
    assert "\n" not in str(caught.value)
