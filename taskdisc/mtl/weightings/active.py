"""A weighting while only some of the tasks are trained."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from taskdisc.errors import SettingError
from taskdisc.mtl.settings import PerTask, WordPerTask
from taskdisc.mtl.weightings.base import Step, Update, Weighting, check_tasks
from taskdisc.mtl.weightings.make import checked, make_weighting
from taskdisc.mtl.weightings.table import WEIGHTINGS

TASK_DIMENSIONS = {("gradvac", "_phi_t"): 2, ("projection", "mean"): 0}
"""How many leading dimensions of a state count tasks, by weighting and name, where that is not one
if its length is the number of tasks, and none if not."""

MAIN_FIRST = frozenset({"pcd"})
"""Weightings whose states have the main task in the first row, and then the others in order."""


class ActiveWeighting(nn.Module):
    """A weighting that answers for the active tasks as if there were no others.

    While all are active it is the weighting itself. Else a weighting of the same name is made for
    the active tasks, with their settings and the same seed; its states are the active rows of the
    full weighting's, and go back into them when other tasks become active. Dropped rows stay as
    they were. Numbers for all tasks together, such as the number of steps, carry over, so that no
    draw is repeated.

    Where a state gets its shape while some tasks are dropped, their rows of it are the active
    tasks' mean where it holds a number for each task, and 0 where it holds a vector, such as a
    tracked gradient. Weights that sum to 1 do so over the active tasks alone.

    Where the weighting cannot be made for the active tasks, as they are too few for it or the main
    task that it requires is not among them, the update is the plain sum of their losses, and the
    states stay as they are.

    Trained parameters are those of `full` throughout, one entry per task; the optimiser gets them
    once. Entries of dropped tasks have a gradient of 0, which does not stop the momentum of an
    optimiser: hence `restore_dropped`.

    Args:
        name: A key of `WEIGHTINGS`.
        n_tasks: Number of tasks, all of them active at first.
        main: Which of them is the main one, from 0.
        seed: From which all that is drawn follows.
        settings: Of the weighting; those per task are for all tasks.

    Attributes:
        full: The weighting of all tasks.
        part: That of the active ones; None while all are active.
        active: Their numbers, in order.
        acting: The name of what gives the updates: `name`, or `equal` where that cannot be made.

    Raises:
        SettingError: as `make_weighting`.
    """

    rows: Tensor
    part: Weighting | None

    def __init__(
        self,
        name: str,
        n_tasks: int,
        main: int | None = None,
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.name = self.acting = name
        self.n_tasks = n_tasks
        self.main = main
        self.seed = seed
        self.settings = dict(settings or {})
        self.full = make_weighting(name, n_tasks, main, seed, **self.settings)
        self.register_module("part", None)
        self.register_buffer("rows", torch.arange(n_tasks), persistent=False)
        self.active = tuple(range(n_tasks))
        self._before: dict[str, Tensor] = {}

    def set_active(self, mask: Sequence[bool] | NDArray[Any]) -> None:
        """Choose the tasks of the next steps, [n_tasks]; between epochs.

        Raises:
            SettingError: not one entry per task, or none is true.
        """
        active = tuple(task for task, is_active in enumerate(mask) if is_active)
        if len(mask) != self.n_tasks or not active:
            raise SettingError(
                f"`mask` must have {self.n_tasks} entries, one for each task, not all of them "
                f"false, got {list(mask)}."
            )
        if active == self.active:
            return
        if self.part is not None and self.acting == self.name:
            self.full.load_state_dict(self._put_back(self.part))
        self._make_part(active)
        if self.part is not None and self.acting == self.name:
            self.part.load_state_dict(self._taken_out(self.part))

    def update(self, step: Step) -> Update:
        """The update of this step, of whose parts all have the active tasks only, [n_active]."""
        if self.part is None:
            return self.full.update(step)
        trained = dict(self.full.named_parameters())
        self._before = {name: value.detach().clone() for name, value in trained.items()}
        sliced = {f"part.{name}": value[self.rows] for name, value in trained.items()}
        return functional_call(self, sliced, (step,))

    def forward(self, step: Step) -> Update:
        """The update by the part alone; `update` calls it with the trained parameters in place."""
        return self._acting().update(step)

    def after_step(self, losses: Tensor) -> None:
        """As of `Weighting`, for the active tasks, [n_active]."""
        self._acting().after_step(losses)

    def after_epoch(self, mean_losses: Tensor) -> None:
        """As of `Weighting`, for the active tasks, [n_active]."""
        self._acting().after_epoch(mean_losses)

    @torch.no_grad()
    def restore_dropped(self) -> None:
        """Undo what the optimiser did to entries of dropped tasks; after each of its steps.

        Its moments of these entries fade meanwhile.
        """
        for name, before in self._before.items():
            parameter = self.full.get_parameter(name)
            parameter.copy_(before.index_copy(0, self.rows, parameter[self.rows]))

    def spread(self, values: Tensor) -> Tensor:
        """Values of the active tasks [n_active] among all, [n_tasks], NaN of dropped ones."""
        everywhere = values.new_full((self.n_tasks,), torch.nan)
        return everywhere.index_copy(0, self.rows.to(values.device), values)

    def get_extra_state(self) -> dict[str, Any]:
        return {"n_tasks": self.n_tasks, "active": list(self.active)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        check_tasks(state["n_tasks"], self.n_tasks)
        # The state of the part is loaded after this, as that of any submodule.
        self._make_part(tuple(state["active"]))

    def _acting(self) -> Weighting:
        return self.full if self.part is None else self.part

    def _make_part(self, active: tuple[int, ...]) -> None:
        """A fresh weighting for these tasks, or none if they are all."""
        self.active = active
        self.rows = torch.tensor(active, device=self.rows.device)
        self.acting, self.part, self._before = self.name, None, {}
        if len(active) == self.n_tasks:
            return
        main = active.index(self.main) if self.main in active else None
        settings = self._settings_of(active)
        try:
            checked(self.name, len(active), main, settings)
        except SettingError:
            # All tasks have passed: it is the choice of them that does not suit the weighting.
            self.acting, settings = "equal", {}
        part = make_weighting(self.acting, len(active), main, self.seed, **settings)
        _untrain(part)
        self.part = part.to(self.rows.device)

    def _settings_of(self, active: Sequence[int]) -> dict[str, Any]:
        kinds = WEIGHTINGS[self.name].settings
        return {
            key: [value[task] for task in active]
            if isinstance(kinds[key], PerTask | WordPerTask) and value is not None
            else value
            for key, value in self.settings.items()
        }

    def _rows_of_states(self) -> Tensor:
        """In which rows of the full weighting's states the active tasks are, [n_active]."""
        tasks = list(range(self.n_tasks))
        if self.name in MAIN_FIRST:
            tasks.sort(key=lambda task: task != self.main)
        return torch.tensor([row for row, task in enumerate(tasks) if task in self.active])

    def _taken_out(self, part: Weighting) -> dict[str, Any]:
        """The state of the full weighting, as the part takes it."""
        state = self.full.state_dict()
        rows = self._rows_of_states()
        return {key: self._taken(state[key], rows, key) for key in part.state_dict()}

    def _taken(self, value: Any, rows: Tensor, key: Any) -> Any:
        """A value of the full state with the active rows only; nested ones one by one."""
        if isinstance(value, Tensor):
            for dimension in range(self._n_dimensions(key, value, self.n_tasks)):
                value = value.index_select(dimension, rows.to(value.device))
            return value.clone()
        if isinstance(value, dict):
            return {name: self._taken(inner, rows, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._taken(inner, rows, key) for inner in value]
        return len(rows) if key == "n_tasks" else value

    def _put_back(self, part: Weighting) -> dict[str, Any]:
        """The state of the full weighting, with that of the part in the active rows."""
        state = dict(self.full.state_dict())
        rows = self._rows_of_states()
        for key, value in part.state_dict().items():
            state[key] = self._put(state[key], value, rows, key)
        return state

    def _put(self, before: Any, value: Any, rows: Tensor, key: Any) -> Any:
        """A value of the part's state, with dropped rows from what the full one had before."""
        if isinstance(value, Tensor):
            n_dimensions = self._n_dimensions(key, value, len(rows))
            return self._widened(before, value, rows, n_dimensions) if n_dimensions else value
        if isinstance(value, dict):
            old = before if isinstance(before, dict) else {}
            return {
                name: self._put(old.get(name), inner, rows, name) for name, inner in value.items()
            }
        if isinstance(value, list):
            # A history that has grown: dropped tasks have not moved since its last entry.
            last = before[-1] if before else None
            pairs = zip_longest(before or [], value, fillvalue=last)
            return [self._put(old, inner, rows, key) for old, inner in pairs]
        return self.n_tasks if key == "n_tasks" else value

    def _widened(self, before: Any, value: Tensor, rows: Tensor, n_dimensions: int) -> Tensor:
        """A tensor for all tasks, with that of the active ones in their rows."""
        shape = (self.n_tasks,) * n_dimensions + value.shape[n_dimensions:]
        if isinstance(before, Tensor) and before.shape == shape:
            whole = before.to(value, copy=True)
        else:
            whole = value.new_zeros(shape) + (value.mean() if value.ndim == 1 else 0)
        rows = rows.to(value.device)
        if n_dimensions == 2:
            whole[rows[:, None], rows] = value
        else:
            whole[rows] = value
        return whole

    def _n_dimensions(self, key: Any, value: Tensor, n_tasks: int) -> int:
        """How many of its leading dimensions count tasks; none while it has no shape yet."""
        counted = value.ndim > 0 and len(value) == n_tasks
        return TASK_DIMENSIONS.get((self.name, key), 1) if counted else 0


def _untrain(weighting: Weighting) -> None:
    """Turn its parameters into places for those of another weighting, which no state holds."""
    for name in [name for name, _ in weighting.named_parameters()]:
        path, _, leaf = name.rpartition(".")
        owner = weighting.get_submodule(path)
        value = owner.get_parameter(leaf).detach()
        delattr(owner, leaf)
        owner.register_buffer(leaf, value, persistent=False)
