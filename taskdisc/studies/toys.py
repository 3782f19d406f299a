"""Losses of two tasks that are formulas, and descent on them: exact gradients, nothing drawn."""

from collections.abc import Callable

import torch
from torch import Tensor

from taskdisc.mtl.weightings.base import Gradients, LookAhead, Step, Update, Weighting

Losses = Callable[[Tensor], Tensor]
"""From parameters [..., n] to the tasks' losses [..., n_tasks]."""

LEAST = 5e-6
"""What is below it counts as it in the logarithms of `valley`."""


def parabolas(centres: Tensor) -> Losses:
    """|θ − c|², one for each centre [n_tasks, n]."""
    return lambda theta: ((theta[..., None, :] - centres) ** 2).sum(dim=-1)


def valley(scale: float = 1.0, offset: float = 0.0) -> Losses:
    """Two tasks that meet in narrow valleys before they reach one bowl each.

    Liu et al. 2021, "Conflict-Averse Gradient Descent for Multi-task Learning", the example of two
    parameters: L_i = c₁ f_i + c₂ g_i with

    - c₁ = max(tanh(θ₂ / 2), 0) and c₂ = max(tanh(−θ₂ / 2), 0), so that one half-plane has valleys
      and the other bowls;
    - valleys f₁ = log max(|(−θ₁ − 7) / 2 − tanh(−θ₂)|, 5e-6) + 6 and
      f₂ = log max(|(−θ₁ + 3) / 2 + tanh(−θ₂) + 2|, 5e-6) + 6;
    - bowls g = ((θ₁ ∓ 7)² + 0.1 (θ₂ + 8)²) / 10 − 20.

    Args:
        scale: Factor of the first loss; Navon et al. 2022 take 0.1.
        offset: Added to both losses, which are negative in the bowls.
    """

    def losses(theta: Tensor) -> Tensor:
        x, y = theta[..., 0], theta[..., 1]
        valleys = torch.stack(
            [(-x - 7) / 2 - torch.tanh(-y), (-x + 3) / 2 + torch.tanh(-y) + 2], dim=-1
        )
        f = valleys.abs().clamp(min=LEAST).log() + 6
        g = (torch.stack([x - 7, x + 7], dim=-1) ** 2 + 0.1 * (y + 8)[..., None] ** 2) / 10 - 20
        # At θ₂ = 0 both have a slope, as with the PyTorch of the example; with today's `clamp`
        # neither has, and nothing leaves (0, 0).
        in_valleys = torch.where(y >= 0, torch.tanh(y / 2), 0.0)[..., None]
        in_bowls = torch.where(y <= 0, torch.tanh(-y / 2), 0.0)[..., None]
        return (in_valleys * f + in_bowls * g) * torch.tensor([scale, 1.0]) + offset

    return losses


def step_at(losses_of: Losses, theta: Tensor, lr: float = 0.0, main: int = 0) -> Step:
    """What a weighting sees at parameters θ [n].

    The second batch has the same gradients, and a validation batch the main task's loss itself.

    Args:
        losses_of: The losses.
        theta: θ.
        lr: Step size of the look-ahead.
        main: Number of the main task.
    """
    at = theta.detach().requires_grad_()
    losses = losses_of(at)

    def jacobian() -> Tensor:
        chosen = torch.eye(len(losses))
        rows = [torch.autograd.grad(losses, at, one, retain_graph=True)[0] for one in chosen]
        return torch.stack(rows)

    gradients = Gradients(jacobian)

    @torch.enable_grad()
    def ahead(weights: Tensor) -> Tensor:
        further = (theta.detach() - lr * weights @ gradients.jacobian).requires_grad_()
        return torch.autograd.grad(losses_of(further)[main], further)[0]

    return Step(losses.detach().requires_grad_(), gradients, gradients, LookAhead(ahead, lr))


def direction_of(update: Update, step: Step) -> Tensor:
    """Along what the shared parameters move, [n_shared]."""
    if update.direction is not None:
        return update.direction
    if update.weights is not None:
        return update.weights @ step.jacobian
    assert update.total is not None
    (weights,) = torch.autograd.grad(update.total, step.losses, retain_graph=True)
    return weights @ step.jacobian


def descend(
    weighting: Weighting,
    losses_of: Losses,
    start: tuple[float, ...],
    *,
    n_steps: int,
    lr: float,
    own_lr: float = 0.025,
    optimiser: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    until: Callable[[Tensor], bool] = lambda losses: False,
) -> Tensor:
    """The parameters from the start on, [n_steps + 1, n]; fewer where something is infinite.

    An epoch is one step, for a step sees all there is.

    Args:
        weighting: What turns the losses and gradients into a direction.
        losses_of: The losses.
        start: θ at first, [n].
        n_steps: Steps.
        lr: Step size.
        own_lr: That of the weighting's own parameters, where it has some.
        optimiser: A class of `torch.optim`; moves both.
        until: Whether losses [n_tasks] are such that no further step is wanted.
    """
    theta = torch.tensor(start)
    own = list(weighting.parameters())
    groups = [{"params": [theta], "lr": lr}, {"params": own, "lr": own_lr}]
    moved_by = optimiser(groups if own else groups[:1], lr=lr)
    places = [theta.clone()]
    for _ in range(n_steps):
        step = step_at(losses_of, theta, lr)
        try:
            update = weighting.update(step)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # its state is no number
            break
        theta.grad = direction_of(update, step).detach().to(theta)
        if own:
            assert update.total is not None
            gradients = torch.autograd.grad(update.total, own)
            for parameter, gradient in zip(own, gradients, strict=True):
                parameter.grad = gradient
        moved_by.step()
        losses = losses_of(theta)
        if not losses.isfinite().all():
            break
        places.append(theta.clone())
        if until(losses):
            break
        weighting.after_step(losses)
        weighting.after_epoch(losses)
    return torch.stack(places)
