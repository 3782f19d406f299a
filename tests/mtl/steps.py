"""Steps of training as weightings see them, without a network."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from taskdisc.mtl.weightings import WEIGHTINGS, make_weighting
from taskdisc.mtl.weightings.base import Gradients, LookAhead, Step, Weighting
from taskdisc.studies.toys import direction_of

J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
"""The gradients of the worked values."""


def made(name: str, n_tasks: int, main: int = 0, seed: int = 0, **settings: Any) -> Weighting:
    """The weighting, with a main task where it asks for one."""
    needed = main if WEIGHTINGS[name].requires_main else None
    return make_weighting(name, n_tasks, needed, seed, **settings)


def step_of(
    jacobian: Tensor, losses: Sequence[float] | Tensor | None = None, main: int = 0
) -> Step:
    """A step with these gradients [n_tasks, n_shared], also on a second batch.

    The validation gradient of the main task is that of training, and losses are 1, 2, … by default.
    """
    values = torch.arange(len(jacobian)) + 1 if losses is None else torch.as_tensor(losses)
    ahead = LookAhead(lambda weights: jacobian[main], 0.5)
    gradients, second = Gradients(lambda: jacobian), Gradients(lambda: jacobian)
    return Step(values.float().requires_grad_(), gradients, second, ahead)


def directions(
    weighting: Weighting,
    jacobian: Tensor,
    losses: Sequence[float] | None = None,
    main: int = 0,
    n_steps: int = 1,
) -> list[Tensor]:
    """The directions of some equal steps, with all hooks called; two steps are an epoch."""
    found = []
    for number in range(n_steps):
        step = step_of(jacobian, losses, main)
        found.append(direction_of(weighting.update(step), step))
        weighting.after_step(step.losses.detach() * 0.9)
        if number % 2:
            weighting.after_epoch(step.losses.detach())
    return found
