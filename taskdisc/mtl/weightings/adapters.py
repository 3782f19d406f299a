"""Rules of torchjd as weightings: their randomness seeded, their state saved, on any device."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from taskdisc.mtl.weightings.base import (
    SMALLEST,
    Setup,
    Step,
    Update,
    Weighting,
    check_tasks,
    given,
    of_total,
    of_weights,
    ratio,
)

STATE = {
    "DWA": ("_loss_sum", "_n_batches", "_previous_averages"),
    "GradVacWeighting": ("_phi_t",),
    "PCDWeighting": ("_sq_norm_ema", "_n_steps"),
    "CRMOGMWeighting": ("_lambda",),
    "MoDoWeighting": ("_lambda",),
    "SDMGradWeighting": ("_w",),
    "_NashMTLWeighting": ("step", "prvs_alpha", "normalization_factor"),
    "ExcessMTLWeighting": (
        "_weights",
        "_sq_grad_sum",
        "_initial_w",
        "_warmup_w_sum",
        "_n_steps",
    ),
}
"""Attributes in which torchjd's classes remember. Their buffers appear with the first call, so that
`load_state_dict` of a fresh one refuses them, and other values are no buffers at all."""


class Adapted(Weighting):
    """A rule of torchjd that answers to a statistic of the losses or gradients.

    Args:
        setup: For what it is made.
        rule: The rule, without trained parameters.
        vectors: Those of its settings that are tensors, by attribute; they follow the statistic
            to its device.
    """

    _rule: Any

    def __init__(
        self, setup: Setup, rule: nn.Module, vectors: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__(setup)
        # Not a submodule: its part of a state_dict would be one that it cannot load.
        object.__setattr__(self, "_rule", rule)
        self._vectors = dict(vectors or {})
        self._n_steps = 0
        self._restored: dict[str, Any] | None = None

    def get_extra_state(self) -> dict[str, Any]:
        kept = self._restored
        if kept is None:
            names = STATE.get(type(self._rule).__name__, ())
            kept = {name: _copied(getattr(self._rule, name)) for name in names}
        return {"n_tasks": self.n_tasks, "n_steps": self._n_steps, "rule": kept}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        check_tasks(state["n_tasks"], self.n_tasks)
        self._n_steps = state["n_steps"]
        self._restored = state["rule"]

    def ask(self, statistic: Tensor) -> Tensor:
        """The rule's answer to the losses, the gradients or their Gramian; counts as a step."""
        for name, vector in self._vectors.items():
            setattr(self._rule, name, vector.to(statistic))
        self._settle(statistic)
        with drawing(self.seed, self._n_steps, statistic.device):
            answer = self._rule(statistic)
        self._n_steps += 1
        return answer

    def _settle(self, statistic: Tensor) -> None:
        """Take up a restored state; the statistic is any of the right shape and place."""
        if self._restored:
            # The rule gives its state a shape, a device and a mark of them at its first call.
            with torch.no_grad(), drawing(self.seed, self._n_steps, statistic.device):
                self._rule(statistic)
            for name, value in self._restored.items():
                setattr(self._rule, name, _like(value, getattr(self._rule, name), statistic.device))
        self._restored = None


class Named(Adapted):
    """A rule of torchjd by its name in a module of torchjd, such as `aggregation:MGDAWeighting`."""

    def __init__(self, setup: Setup, torchjd: str, **settings: Any) -> None:
        vectors = {k: torch.tensor(v) for k, v in settings.items() if isinstance(v, tuple)}
        rule = resolve_name(f"torchjd.{torchjd}")(**{**settings, **vectors})
        super().__init__(setup, rule, vectors)


class FromLosses(Named):
    """A scalarisation of torchjd: the losses [n_tasks] become one."""

    def update(self, step: Step) -> Update:
        return of_total(self.ask(step.losses), step.losses)


class FromPositiveLosses(Named):
    """The same of losses whose logarithm or ratio is taken: one of 0 counts as `SMALLEST`."""

    def update(self, step: Step) -> Update:
        return of_total(self.ask(step.losses.clamp(min=SMALLEST)), step.losses)


class FromGramian(Named):
    """A weighting of torchjd that answers to the Gramian."""

    @torch.no_grad()
    def update(self, step: Step) -> Update:
        return of_weights(self.ask(step.gramian))


class FromScaledGramian(Named):
    """A weighting of torchjd whose weights are the same for all gradients times a constant.

    The Gramian is brought to a mean diagonal of 1, as torchjd's thresholds would else take short
    gradients for none and long ones for dependent.
    """

    @torch.no_grad()
    def update(self, step: Step) -> Update:
        return of_weights(self.ask(of_unit_scale(step.gramian)))


class FromJacobian(Named):
    """A weighting of torchjd that answers to the gradients themselves."""

    @torch.no_grad()
    def update(self, step: Step) -> Update:
        return of_weights(self.ask(step.jacobian))


class Aggregated(Named):
    """An aggregation of torchjd that is no combination of the gradients."""

    @torch.no_grad()
    def update(self, step: Step) -> Update:
        return Update(direction=self.ask(step.jacobian))


class TwoBatches(Named):
    """A weighting of torchjd that answers to J₁J₂ᵀ of two independent batches.

    The shared parameters move along the mean of both batches' gradients with its weights, eq. 2.9b
    of MoDo. LibMTL takes a third batch for that.
    """

    @torch.no_grad()
    def update(self, step: Step) -> Update:
        first, second = step.jacobian, given(step.second, "second").jacobian
        weights = self.ask(first @ second.T)
        return Update(direction=weights @ ((first + second) / 2), shown=weights)


def of_unit_scale(gramian: Tensor) -> Tensor:
    """The Gramian over its mean diagonal; one of zeros as it is."""
    return ratio(gramian, gramian.diagonal().mean())


@contextmanager
def drawing(seed: int, n_steps: int, device: torch.device) -> Iterator[None]:
    """Draws within it follow from a seed and a step; the global state is as before after it."""
    on_gpu = device.type == "cuda"
    derived = int(np.random.SeedSequence([seed, n_steps]).generate_state(1)[0])
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(derived)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(derived)
        yield


def _copied(value: Any) -> Any:
    """A value as `torch.load` takes it with `weights_only`."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, list):
        return [_copied(part) for part in value]
    return value.detach().clone() if isinstance(value, Tensor) else value


def _like(value: Any, present: Any, device: torch.device) -> Any:
    """A saved value in the form and place of the present one."""
    if isinstance(present, np.ndarray):
        return value.numpy().copy()
    if isinstance(value, list):
        return [_like(part, None, device) for part in value]
    if isinstance(value, Tensor):
        return value.to(present.device if isinstance(present, Tensor) else device).clone()
    return value
