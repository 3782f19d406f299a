"""The examples of Du et al. 2018, "Adapting Auxiliary Losses Using Gradient Similarity"."""

from typing import Any

import pytest
import torch
from steps import made

from taskdisc.studies.run import study
from taskdisc.studies.toys import parabolas, step_at


@pytest.mark.parametrize("name", ["cosine-weighted", "cosine-unweighted"])
@pytest.mark.parametrize(
    ("theta", "helps"),
    [(-20.0, True), (-0.1, True), (0.1, False), (5.0, False), (9.9, False), (10.1, True)],
)
def test_parabolas_on_a_line_oppose_between_their_minima(
    theta: float, helps: bool, name: str
) -> None:
    step = step_at(parabolas(torch.tensor([[10.0], [0.0]])), torch.tensor([theta]))
    gradients = step.jacobian[:, 0]
    assert (gradients[0] * gradients[1] > 0) == helps
    shown = made(name, 2).update(step).shown
    # the cosine of two numbers is 1 or −1
    assert shown is not None and shown.tolist() == pytest.approx([1, 1 if helps else 0])


@pytest.fixture(scope="module")
def table() -> list[dict[str, Any]]:
    return study("gradient-cosine-toy", jobs=1).table


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("single task", [103, 93, 95, 55, 63]),
        ("equal", [None, None, 25, None, None]),
        ("fixed (weights = [1.0, 0.1])", [94, 97, 73, 66, 74]),
        ("cosine-unweighted", [78, 85, 25, 55, 63]),
        ("cosine-weighted", [81, 88, 25, 55, 63]),
    ],
)
def test_steps_to_the_main_minimum(
    table: list[dict[str, Any]], name: str, expected: list[int | None]
) -> None:
    assert [row["steps"] for row in table if row["weighting"] == name] == expected
