"""Gradients with respect to shared parameters, by both routes."""

import pytest
import torch
from torch import Tensor

from taskdisc.errors import SettingError
from taskdisc.mtl.architectures import make_network
from taskdisc.mtl.architectures.base import MultiTaskNetwork, reach
from taskdisc.mtl.backbones import make_backbone
from taskdisc.mtl.gradients import SharedGradients

IMAGES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def network(architecture: str = "hard-sharing", backbone: str = "lenet") -> MultiTaskNetwork:
    """A small network of three tasks."""
    return make_network(architecture, lambda: make_backbone(backbone, (3, 16, 16)), [2, 1, 3])


def gradients_of(made: MultiTaskNetwork, route: str) -> SharedGradients:
    """Of what several tasks reach."""
    reached = reach(made, IMAGES[:2])
    shared = [name for name, tasks in reached.items() if len(tasks) > 1]
    return SharedGradients(made, shared, route, 3)


def losses_of(made: MultiTaskNetwork) -> Tensor:
    """A loss for each task."""
    return torch.stack([output.pow(2).mean() for output in made(IMAGES)])


def test_the_jacobian_is_that_of_one_task_at_a_time() -> None:
    made = network()
    shared = gradients_of(made, "jacobian")
    losses = losses_of(made)
    expected = [
        torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, shared.parameters, retain_graph=True)]
        )
        for loss in losses
    ]
    found = shared.of(losses)
    torch.testing.assert_close(found.jacobian, torch.stack(expected))
    assert found.jacobian.shape == (
        3,
        sum(p.numel() for p in made.get_submodule("shared").parameters()),
    )
    parts = shared.split(found.jacobian[0])
    assert [p.shape for p in parts] == [p.shape for p in shared.parameters]
    losses.sum().backward()  # the graph is still there


def test_the_gramian_alone_agrees_and_leaves_the_graph() -> None:
    made = network()
    shared = gradients_of(made, "gramian")
    assert shared.gramian_alone
    # Of two of the tasks, after a forward pass of its own.
    losses_of(made)
    engine = shared.engine()
    outputs = made(IMAGES)
    losses = torch.stack([output.pow(2).mean() for output in outputs[:2]])
    found = shared.of(losses, outputs, engine)
    with torch.no_grad():  # where weightings ask for it
        gramian = found.gramian
    torch.testing.assert_close(gramian, found.jacobian @ found.jacobian.T)
    losses.sum().backward()


@pytest.mark.parametrize("backbone", ["convnet", "resnet"])
def test_batch_statistics_take_the_jacobian(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="must be jacobian or auto for a network"):
        gradients_of(network(backbone=backbone), "gramian")
    monkeypatch.setattr("taskdisc.mtl.gradients.MOST_BYTES", 1000)
    assert not gradients_of(network(backbone=backbone), "auto").gramian_alone


def test_auto_takes_the_gramian_where_the_jacobian_is_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not gradients_of(network(), "auto").gramian_alone
    monkeypatch.setattr("taskdisc.mtl.gradients.MOST_BYTES", 1000)
    assert gradients_of(network(), "auto").gramian_alone


def test_nothing_shared_is_a_column_of_zeros() -> None:
    made = network("independent")
    shared = gradients_of(made, "auto")
    assert shared.parameters == []
    assert torch.equal(shared.of(losses_of(made)).jacobian, torch.zeros(3, 1))
    assert shared.split(torch.zeros(1)) == []
