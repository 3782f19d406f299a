"""The examples of Du et al. 2018, "Adapting Auxiliary Losses Using Gradient Similarity"."""

from typing import Any

import pytest
import torch
from steps import direction_of, made
from torch import Tensor

from taskdisc.mtl.weightings.base import Gradients, Step

STARTS = [(-2.0, 1.5), (-0.5, 2.0), (-1.5, -1.5), (0.5, 0.8), (1.0, 0.5)]


def step_at(theta: Tensor, centres: Tensor) -> Step:
    """A step of the losses |θ − c|², one for each centre [n_tasks, n]; the first is main."""
    offsets = theta - centres
    return Step((offsets**2).sum(dim=1).requires_grad_(), Gradients(lambda: 2 * offsets))


def steps_needed(start: tuple[float, float], name: str | None, **settings: Any) -> int | None:
    """Steps of 0.01 until |θ|² < 0.1 with the auxiliary |θ − (1, 1)|²; None: not in 600.

    Without a name of a weighting the main task is alone.
    """
    centres = torch.tensor([[0.0, 0.0], [1.0, 1.0]])[: 1 if name is None else 2]
    weighting = made(name or "equal", len(centres), **settings)
    theta = torch.tensor(start)
    for number in range(1, 601):
        step = step_at(theta, centres)
        theta = theta - 0.01 * direction_of(weighting.update(step), step).detach()
        if (theta**2).sum() < 0.1:
            return number
    return None


@pytest.mark.parametrize("name", ["cosine-weighted", "cosine-unweighted"])
@pytest.mark.parametrize(
    ("theta", "helps"),
    [(-20.0, True), (-0.1, True), (0.1, False), (5.0, False), (9.9, False), (10.1, True)],
)
def test_parabolas_on_a_line_oppose_between_their_minima(
    theta: float, helps: bool, name: str
) -> None:
    step = step_at(torch.tensor([theta]), torch.tensor([[10.0], [0.0]]))
    gradients = step.jacobian[:, 0]
    assert (gradients[0] * gradients[1] > 0) == helps
    shown = made(name, 2).update(step).shown
    # the cosine of two numbers is 1 or −1
    assert shown is not None and shown.tolist() == pytest.approx([1, 1 if helps else 0])


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        (None, {}, [103, 93, 95, 55, 63]),
        ("equal", {}, [None, None, 25, None, None]),
        ("fixed", {"weights": [1.0, 0.1]}, [94, 97, 73, 66, 74]),
        ("cosine-unweighted", {}, [78, 85, 25, 55, 63]),
        ("cosine-weighted", {}, [81, 88, 25, 55, 63]),
    ],
)
def test_steps_to_the_main_minimum(
    name: str | None, settings: dict[str, Any], expected: list[int | None]
) -> None:
    assert [steps_needed(start, name, **settings) for start in STARTS] == expected
