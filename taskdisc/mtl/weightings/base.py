"""What a weighting is: losses and gradients of several tasks in, one update out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from taskdisc.errors import SettingError

T = TypeVar("T")

SMALLEST = 1e-8
"""Losses below it count as it in logarithms and ratios, so that a solved task stays finite."""


@dataclass(frozen=True)
class Setup:
    """For what a weighting is made.

    Attributes:
        n_tasks: Number of tasks, at least 1.
        main: Which of them is the main one, from 0; the others are auxiliaries.
        seed: Whatever a weighting draws follows from it and from the number of its steps.
    """

    n_tasks: int
    main: int | None = None
    seed: int = 0


class Gradients:
    """Gradients of the tasks' losses with respect to the shared parameters, computed when asked.

    Args:
        jacobian: Computes them, one row per task, [n_tasks, n_shared].
        gramian: Computes their inner products [n_tasks, n_tasks] without the Jacobian; where there
            is none, they are taken from it.
    """

    def __init__(
        self, jacobian: Callable[[], Tensor], gramian: Callable[[], Tensor] | None = None
    ) -> None:
        self._jacobian = jacobian
        self._gramian = gramian

    @cached_property
    def jacobian(self) -> Tensor:
        """One gradient per row, [n_tasks, n_shared], detached."""
        return self._jacobian().detach()

    @cached_property
    def gramian(self) -> Tensor:
        """Their inner products [n_tasks, n_tasks], detached."""
        if self._gramian is not None:
            return self._gramian().detach()
        return self.jacobian @ self.jacobian.T


@dataclass(frozen=True)
class LookAhead:
    """What bilevel weightings ask of the trainer.

    Attributes:
        gradient: Given weights [n_tasks], the gradient [n_shared] of the main task's loss on a
            validation batch, at the shared parameters after a plain step with these weights,
            θ′ = θ − lr · weights @ jacobian; the network itself is left as it was.
        lr: The step size lr.
    """

    gradient: Callable[[Tensor], Tensor]
    lr: float


@dataclass(frozen=True)
class Step:
    """What is known before one step of training.

    Attributes:
        losses: The tasks' losses [n_tasks], attached to the graph.
        gradients: Of these losses; None for weightings that need losses only.
        second: Of the same tasks on an independent batch, for those that need two.
        look_ahead: For those that need a validation batch.
    """

    losses: Tensor
    gradients: Gradients | None = None
    second: Gradients | None = None
    look_ahead: LookAhead | None = None

    @property
    def jacobian(self) -> Tensor:
        """`gradients.jacobian`."""
        return given(self.gradients, "gradients").jacobian

    @property
    def gramian(self) -> Tensor:
        """`gradients.gramian`."""
        return given(self.gradients, "gradients").gramian


@dataclass(frozen=True)
class Update:
    """What to do in one step of training.

    With `total` alone, everything follows its gradient: shared parameters, heads and the
    weighting's own parameters. `weights` or `direction` say how the shared parameters move instead;
    the heads then follow `total` where that is given too, else each its task's plain gradient.

    Attributes:
        total: A scalar to call `backward` on.
        weights: [n_tasks]; the shared parameters move along `weights @ jacobian`.
        direction: [n_shared]; they move along it, for what is no combination of the gradients.
        shown: Effective weights of the tasks [n_tasks] for the log, where there are such.
    """

    total: Tensor | None = None
    weights: Tensor | None = None
    direction: Tensor | None = None
    shown: Tensor | None = None


class Weighting(nn.Module, ABC):
    """A rule that turns several losses or gradients into one update.

    Its parameters, where it has some, are for the trainer's optimiser to train. All else that it
    remembers is in its `state_dict`.
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.n_tasks = setup.n_tasks
        self.main = setup.main
        self.seed = setup.seed

    @abstractmethod
    def update(self, step: Step) -> Update:
        """The update of this step; called once per step."""

    def after_step(self, losses: Tensor) -> None:
        """Hears the losses [n_tasks] on the same batch after the parameters have moved.

        The trainer computes them and calls this only where the row of the table says `rerun`.
        """

    def after_epoch(self, mean_losses: Tensor) -> None:
        """Hears the tasks' mean training losses [n_tasks] once at the end of every epoch."""

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # A buffer that gets its shape from the first gradients is empty until then.
        for name, buffer in self._buffers.items():
            saved = state_dict.get(prefix + name)
            if buffer is None or saved is None:
                continue
            if not buffer.numel() or not saved.numel():
                self._buffers[name] = torch.empty_like(saved, device=buffer.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class MainWeighting(Weighting):
    """A weighting of a main task and its auxiliaries."""

    main: int

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.main = given(setup.main, "main")


def of_total(total: Tensor, losses: Tensor) -> Update:
    """The update by a scalar; the weights shown are its derivatives by the losses."""
    (shown,) = torch.autograd.grad(total, losses, retain_graph=True)
    return Update(total=total, shown=shown)


def of_weights(weights: Tensor) -> Update:
    """The update by a combination of the gradients with these weights [n_tasks]."""
    return Update(weights=weights, shown=weights)


def check_tasks(saved: int, n_tasks: int) -> None:
    """Refuse a saved state of another number of tasks.

    Raises:
        SettingError: it is one.
    """
    if saved != n_tasks:
        raise SettingError(f"`n_tasks` must be {saved}, as in the saved state, got {n_tasks}.")


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b entry by entry, and 0 where b is 0."""
    return torch.where(b == 0, 0.0, a / torch.where(b == 0, 1.0, b))


def given(value: T | None, name: str) -> T:
    """The value, where there is one.

    Raises:
        ValueError: there is none.
    """
    if value is None:
        raise ValueError(f"`{name}` must be given to a weighting that needs it, got None.")
    return value
