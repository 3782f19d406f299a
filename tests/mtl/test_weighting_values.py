"""Every weighting against numbers that were worked out elsewhere."""

import math
from typing import Any

import pytest
import torch
from steps import J, direction_of, made, step_of
from torch import Tensor
from torch.testing import assert_close

from taskdisc.mtl.weightings import WEIGHTINGS
from taskdisc.mtl.weightings.base import Gradients, LookAhead, Step, Weighting

ATOL = 1e-4

THREE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 5.0]])

Settings = dict[str, Any]

DIRECTIONS: list[tuple[str, Settings, list[float]]] = [
    # torchjd's own table of values
    ("mgda", {}, [0, 1, 1]),
    ("imtl-g", {}, [0.0767, 1, 1]),
    ("imtl", {}, [0.0767, 1, 1]),  # with scales at their start, that of IMTL-G
    ("aligned-mtl", {}, [0.2133, 0.9673, 0.9673]),
    ("config", {}, [0.1588, 2.0706, 2.0706]),
    ("pcgrad", {}, [0.5848, 3.8012, 3.8012]),
    ("gradvac", {}, [0.5848, 3.8012, 3.8012]),
    ("upgrad", {}, [0.2929, 1.9004, 1.9004]),
    ("dualproj", {}, [0.5563, 1.1109, 1.1109]),
    ("cagrad", {}, [0.1835, 1.2041, 1.2041]),
    ("nash-mtl", {}, [0.0542, 0.7061, 0.7061]),
    ("fixed", {"weights": [1, 2]}, [8, 3, 3]),
    ("fixed", {}, [2, 2, 2]),
    ("equal", {}, [2, 2, 2]),
    # G w = 1 / w: at unit length in Nash-MTL, as max_norm is 1
    ("fairgrad", {}, [0.0766, 0.9985, 0.9985]),
    ("pcd", {}, [-0.8200, 2.9434, 2.9434]),
    ("excess-mtl", {}, [4.8080, 1, 1]),
    ("cr-mogm", {}, [0, 1, 1]),  # the first step is that of MGDA
    ("cr-mogm", {"of": "PCGrad"}, [0.5848, 3.8012, 3.8012]),
    # from the formulas of the papers or their authors' code
    ("cosine-unweighted", {}, [-4, 1, 1]),
    ("cosine-weighted", {}, [-4, 1, 1]),
    ("tanimoto", {}, [-4, 1, 1]),
    ("projection", {}, [-2.8889, 3.2222, 3.2222]),
    ("orthogonal", {}, [-2.8889, 3.2222, 3.2222]),  # as projection where gradients conflict
    ("db-mtl", {"beta": 0.0}, [0.1295, 1.6882, 1.6882]),
    ("db-mtl", {}, [0.01295, 0.16882, 0.16882]),
    ("moco", {}, [0.2374, 0.1396, 0.1396]),
    ("scale-invariant", {}, [-1, 1.5, 1.5]),
    # m = norm ratio √18 / √38 = .68825 → weight .7 · .68825 + .3
    ("metabalance", {}, [0.69063, 1.78177, 1.78177]),
    ("metabalance", {"relax": 1.0}, [0.12948, 1.68825, 1.68825]),
    ("metabalance", {"strategy": "smaller"}, [2, 2, 2]),
    # λ ← Π(λ − .1 (Gλ + .1 λ)) = Π([.695, −.305]) = [1, 0]
    ("modo", {}, [-4, 1, 1]),
]


@pytest.mark.parametrize(("name", "settings", "expected"), DIRECTIONS)
def test_direction_on_two_conflicting_gradients(
    name: str, settings: Settings, expected: list[float]
) -> None:
    step = step_of(J)
    direction = direction_of(made(name, 2, **settings).update(step), step)
    assert_close(direction, torch.tensor(expected).float(), atol=ATOL, rtol=0)


WEIGHTS: list[tuple[str, list[float]]] = [
    ("mgda", [0.6, 0.4]),
    ("imtl-g", [0.5923, 0.4077]),
    ("aligned-mtl", [0.5591, 0.4083]),
    ("pcgrad", [2.2222, 1.5789]),
    ("fairgrad", [0.5915, 0.4071]),
    ("upgrad", [1.1109, 0.7894]),
    ("dualproj", [0.6109, 0.5]),
    ("cagrad", [0.7041, 0.5]),
    ("moco", [0.5094, 0.4906]),
    ("go4align", [1.5001, 0.7500]),
    ("gradnorm", [1, 1]),
]


@pytest.mark.parametrize(("name", "expected"), WEIGHTS)
def test_weights_shown_on_two_conflicting_gradients(name: str, expected: list[float]) -> None:
    shown = made(name, 2).update(step_of(J)).shown
    assert_close(shown, torch.tensor(expected).float(), atol=ATOL, rtol=0)


def test_fairgrad_solves_its_equation() -> None:
    weights = made("fairgrad", 2).update(step_of(J)).weights
    assert weights is not None
    assert_close(J @ J.T @ weights, 1 / weights, atol=1e-3, rtol=0)


def test_pcd_takes_the_main_task_wherever_it_is() -> None:
    step = step_of(J, main=1)
    direction = direction_of(made("pcd", 2, main=1).update(step), step)
    assert_close(direction, torch.tensor([1.8386, 4.1605, 4.1605]), atol=ATOL, rtol=0)


TOTALS: list[tuple[str, Settings, list[float], float]] = [
    ("equal", {}, [1, 2, 4], 7.0),
    ("fixed", {"weights": [1, 0, 2]}, [1, 2, 4], 9.0),
    ("uncertainty", {}, [1, 2, 4], 3.5),
    ("uncertainty", {"kinds": ["classification"] * 3}, [1, 2, 4], 7.0),
    ("uncertainty", {"kinds": ["regression", "classification", "regression"]}, [1, 2, 4], 4.5),
    ("revised-uncertainty", {}, [1, 2, 4], 3.5 + 3 * math.log(2)),
    ("imtl-l", {}, [1, 2, 4], 7.0),
    ("geometric", {}, [1, 2, 4], 2.0),
    ("famo", {}, [1, 2], 0.46210),
    ("stch", {"mu": 1.0}, [0, 0], math.log(2)),
    ("stch", {"mu": 1.0}, [1, 2], 1.47408),
    ("cosmos", {"weights": [0.5, 0.5]}, [1, 1], 0.0),
    ("pbi", {"theta": 1.0, "weights": [1, 1]}, [2, 0], 2 * math.sqrt(2)),
    ("scale-invariant", {}, [1, 2], 0.69315),
    ("dwa", {}, [3, 5], 8.0),
    ("go4align", {"rate": 1.0}, [1, 2], 3.0),
    ("go4align", {"rate": 1.0, "n_groups": 1}, [1, 2], 3.8949),
]


@pytest.mark.parametrize(("name", "settings", "losses", "expected"), TOTALS)
def test_total_of_losses(
    name: str, settings: Settings, losses: list[float], expected: float
) -> None:
    jacobian = torch.eye(len(losses))
    total = made(name, len(losses), **settings).update(step_of(jacobian, losses)).total
    assert_close(total, torch.tensor(expected), atol=ATOL, rtol=0, check_dtype=False)


def test_stch_has_the_largest_loss_as_its_limit() -> None:
    total = made("stch", 2, mu=1e-3).update(step_of(J, [1, 2])).total
    assert_close(total, torch.tensor(1.0), atol=ATOL, rtol=0)


def test_dwa_weights_after_two_epochs() -> None:
    weighting = made("dwa", 2)
    for losses in ([1.0, 1.0], [1.0, 4.0]):
        weighting.update(step_of(J, losses))
        weighting.after_epoch(torch.tensor(losses))
    update = weighting.update(step_of(J, [3.0, 5.0]))
    assert_close(update.shown, torch.tensor([0.36485, 1.63515]), atol=ATOL, rtol=0)
    assert_close(update.total, torch.tensor(9.27030), atol=ATOL, rtol=0)


def test_famo_learns_from_the_losses_after_a_step() -> None:
    weighting = made("famo", 2)
    shown = weighting.update(step_of(J, [1, 2])).shown
    assert_close(shown, torch.tensor([0.66667, 0.33333]), atol=ATOL, rtol=0)
    weighting.after_step(torch.tensor([0.5, 1.5]))
    expected = torch.tensor([-0.025, 0.025]).softmax(dim=0)
    assert_close(weighting.task_weights, expected, atol=ATOL, rtol=0)


def test_gradnorm_follows_the_training_rates() -> None:
    weighting = made("gradnorm", 2)
    weighting.load_state_dict({"weights": torch.ones(2), "first_losses": torch.tensor([2.0, 2.0])})
    weighting.update(step_of(J, [1, 2]))
    assert_close(weighting.weights, torch.tensor([0.8730, 1.1270]), atol=ATOL, rtol=0)
    update = weighting.update(step_of(J, [1, 2]))
    assert_close(update.shown, torch.tensor([0.8730, 1.1270]), atol=ATOL, rtol=0)


def test_sdmgrad_on_two_batches() -> None:
    weighting = made("sdmgrad", 3, n_iter=1, lr=10.0)
    for product, expected in (
        (torch.tensor([1.0, 0.25, 0.0]), [1 / 13, 1 / 13, 11 / 13]),
        (torch.ones(3), [6 / 13, 6 / 13, 1 / 13]),
    ):
        second = Gradients(lambda product=product: product.diag())
        step = Step(torch.ones(3, requires_grad=True), Gradients(lambda: torch.eye(3)), second)
        shown = weighting.update(step).shown
        assert_close(shown, torch.tensor(expected), atol=ATOL, rtol=0)


def test_two_batches_give_the_mean_of_their_gradients() -> None:
    first, second = torch.eye(2), torch.tensor([[3.0, 0.0], [0.0, 5.0]])
    step = Step(torch.ones(2, requires_grad=True), Gradients(lambda: first))
    step = Step(step.losses, step.gradients, Gradients(lambda: second))
    update = made("modo", 2).update(step)
    assert update.shown is not None and update.direction is not None
    assert_close(update.direction, update.shown * torch.tensor([2.0, 3.0]))


def test_excess_mtl_weighs_by_excess_risk() -> None:
    shown = made("excess-mtl", 2).update(step_of(torch.tensor([[2.0, 0.0], [1.0, 0.0]]))).shown
    expected = torch.tensor([2.0, 1.0]).softmax(dim=0)
    assert_close(shown, expected, atol=ATOL, rtol=0)


def test_cr_mogm_smooths_weights() -> None:
    weighting = made("cr-mogm", 2, alpha=0.9)
    weighting.update(step_of(J))
    shown = weighting.update(step_of(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))).shown
    expected = 0.9 * torch.tensor([0.6, 0.4]) + 0.1 * torch.tensor([0.5, 0.5])
    assert_close(shown, expected, atol=ATOL, rtol=0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cosine-weighted", [1.70711, 0.70711]),
        ("cosine-unweighted", [2, 1]),
        ("tanimoto", [1.5, 0.5]),  # 1 / (1 + 2 − 1)
        ("projection", [2, 1]),  # nothing of it opposes the main gradient
        ("orthogonal", [1, 1]),
    ],
)
def test_agreeing_auxiliary(name: str, expected: list[float]) -> None:
    step = step_of(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    direction = direction_of(made(name, 2).update(step), step)
    assert_close(direction, torch.tensor(expected).float(), atol=ATOL, rtol=0)


def test_unweighted_cosine_takes_what_is_orthogonal() -> None:
    shown = made("cosine-unweighted", 2).update(step_of(torch.eye(2))).shown
    assert_close(shown, torch.ones(2))


def test_projection_smooths_the_main_gradient() -> None:
    weighting = made("projection", 2, smoothing=0.5)
    weighting.update(step_of(torch.tensor([[2.0, 0.0], [0.0, 0.0]])))
    step = step_of(torch.tensor([[0.0, 2.0], [0.0, -1.0]]))
    # mean (1, 1): of (0, −1) that takes −(−1/√2)(1, 1)/√2 = (.5, .5) away
    direction = direction_of(weighting.update(step), step)
    assert_close(direction, torch.tensor([0.5, 1.5]), atol=ATOL, rtol=0)


@pytest.mark.parametrize(("log", "expected"), [(False, 0.78), (True, 0.89)])
def test_ol_aux_lowers_the_weight_of_a_conflicting_auxiliary(log: bool, expected: float) -> None:
    weighting = made("ol-aux", 2, rate=0.01, horizon=1, log=log)
    weighting.update(step_of(J))
    assert_close(weighting.weights, torch.tensor([1, expected]), atol=ATOL, rtol=0)


def test_ol_aux_waits_for_its_horizon() -> None:
    weighting = made("ol-aux", 2, rate=0.01, horizon=2, log=False)
    weighting.update(step_of(J))
    assert_close(weighting.weights, torch.ones(2))
    weighting.update(step_of(J))
    assert_close(weighting.weights, torch.tensor([1, 0.56]), atol=ATOL, rtol=0)


def quadratic_step(theta: Tensor) -> Step:
    """Losses (θ − c)² / 2 with c = 0 and 2; the validation loss is that of the first."""
    centres = torch.tensor([0.0, 2.0])
    jacobian = (theta - centres)[:, None]

    def gradient(weights: Tensor) -> Tensor:
        return theta - 0.5 * (weights @ jacobian) - centres[:1]

    losses = ((theta - centres) ** 2 / 2).requires_grad_()
    return Step(losses, Gradients(lambda: jacobian), look_ahead=LookAhead(gradient, 0.5))


def test_auto_lambda_follows_the_validation_loss() -> None:
    weighting = made("auto-lambda", 2, lr=0.01)
    step = quadratic_step(torch.tensor(1.0))
    assert_close(weighting.slope_of(step), torch.tensor([-0.5, 0.5]), atol=ATOL, rtol=0)
    shown = weighting.update(step).shown
    # Adam's first step has the length of its step size
    assert_close(shown, torch.tensor([0.11, 0.09]), atol=ATOL, rtol=0)


def test_auto_lambda_looks_ahead_with_its_weights() -> None:
    weighting = made("auto-lambda", 2, start=1.0)
    # θ′ = 3 − ½ (3 + 1) = 1, so −½ · 1 · (3, 1)
    slope = weighting.slope_of(quadratic_step(torch.tensor(3.0)))
    assert_close(slope, torch.tensor([-1.5, -0.5]), atol=ATOL, rtol=0)


def test_random_weights_are_a_convex_combination() -> None:
    weighting = made("random", 3)
    shown = torch.stack([weighting.update(step_of(THREE)).shown for _ in range(200)])
    assert (shown > 0).all()
    assert_close(shown.sum(dim=1), torch.ones(200))
    # the mean of 200 has a standard error of about 0.015
    assert_close(shown.mean(dim=0), torch.full((3,), 1 / 3), atol=0.06, rtol=0)


def test_graddrop_keeps_gradients_of_one_sign() -> None:
    weighting = made("graddrop", 2)
    jacobian = torch.tensor([[3.0, 1.0], [-1.0, 1.0]])
    found = torch.stack([weighting.update(step_of(jacobian)).direction for _ in range(400)])
    assert set(found[:, 0].tolist()) == {3.0, -1.0}
    assert set(found[:, 1].tolist()) == {2.0}
    # positive with probability ½ (1 + 2/4) = ¾, standard error 0.022
    assert_close((found[:, 0] > 0).float().mean(), torch.tensor(0.75), atol=0.08, rtol=0)


def test_krum_takes_the_most_central_gradient() -> None:
    jacobian = torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 5.0]])
    assert_close(made("krum", 3).update(step_of(jacobian)).shown, torch.tensor([1.0, 0.0, 0.0]))


def test_trimmed_mean_is_the_median_of_three() -> None:
    jacobian = torch.tensor([[1.0, -9.0], [2.0, 0.0], [30.0, 1.0]])
    assert_close(
        made("trimmed-mean", 3).update(step_of(jacobian)).direction, torch.tensor([2.0, 0.0])
    )


def test_imtl_projects_equally_on_scaled_gradients() -> None:
    weighting = made("imtl", 2)
    weighting.load_state_dict({"scales.log_scale": torch.tensor([0.5, -1.0])})
    step = step_of(J)
    update = weighting.update(step)
    along = J @ direction_of(update, step) / torch.linalg.vector_norm(J, dim=1)
    assert_close(along[0], along[1], atol=1e-3, rtol=0)
    # heads: exp(s) L − s
    expected = math.exp(0.5) - 0.5 + 2 * math.exp(-1.0) + 1.0
    assert_close(update.total, torch.tensor(expected), atol=ATOL, rtol=0)


def test_go4align_shares_weights_in_groups() -> None:
    weighting: Weighting = made("go4align", 4, n_groups=2, rate=0.0)
    shown = weighting.update(step_of(torch.eye(4), [1.0, 1.2, 8.0, 9.0])).shown
    assert shown is not None
    assert shown[0] == shown[1] and shown[2] == shown[3]
    assert shown[0] > shown[2]


TESTED = (
    {name for name, *_ in DIRECTIONS}
    | {name for name, *_ in WEIGHTS}
    | {name for name, *_ in TOTALS}
    | {"sdmgrad", "ol-aux", "auto-lambda", "random", "graddrop", "krum", "trimmed-mean"}
)


def test_no_weighting_is_without_a_value() -> None:
    assert set(WEIGHTINGS) == TESTED
