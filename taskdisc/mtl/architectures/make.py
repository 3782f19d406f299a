"""Networks by the name of their architecture."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from taskdisc.errors import SettingError, did_you_mean
from taskdisc.mtl.architectures.row import Row
from taskdisc.mtl.architectures.table import ARCHITECTURES
from taskdisc.mtl.settings import check_settings, values_of

if TYPE_CHECKING:
    from taskdisc.mtl.architectures.base import MultiTaskNetwork
    from taskdisc.mtl.backbones.base import Backbone


def make_network(
    name: str,
    backbone: "Callable[[], Backbone]",
    n_outputs: Sequence[int],
    seed: int = 0,
    kinds: Sequence[str] = (),
    **settings: Any,
) -> "MultiTaskNetwork":
    """A network of that architecture.

    Args:
        name: A key of `ARCHITECTURES`.
        backbone: Makes one backbone per call, as `make_backbone` does.
        n_outputs: Of each task's head.
        seed: From which the initial weights follow.
        kinds: Of the tasks, keys of `KINDS`; by default one output is binary, several are classes.
        settings: Of the architecture; the others have their defaults.

    Raises:
        SettingError: an unknown name or setting, a value that breaks its rule, too few tasks, or a
            backbone of which no stage is trained, where the architecture needs one.
    """
    import torch

    from taskdisc.mtl.architectures.base import Plan

    row = checked(name, len(n_outputs), settings)
    known = tuple(kinds) or tuple("classification" if n > 1 else "binary" for n in n_outputs)

    def with_stages() -> "Backbone":
        made = backbone()
        if row.needs_stages and not len(made.stages):
            raise SettingError(
                f"architecture '{name}' must have a stage of the backbone to train, got none; set "
                "`mode` to last or whole, or `hidden` to the width of a further layer."
            )
        return made

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        plan = Plan(with_stages, tuple(n_outputs), known)
        return row.make(plan, **values_of(row.settings, settings, len(n_outputs)))


def checked(name: str, n_tasks: int, settings: Mapping[str, Any]) -> Row:
    """The row of an architecture that could be made so; imports nothing heavy.

    Raises:
        SettingError: as `make_network`.
    """
    if name not in ARCHITECTURES:
        raise SettingError(
            f"the architecture must be a known one, got {name!r}; "
            f"{did_you_mean(name, ARCHITECTURES)}"
        )
    row = ARCHITECTURES[name]
    check_settings("architecture", name, row.settings, settings, n_tasks)
    if n_tasks < row.least_tasks:
        raise SettingError(
            f"`n_tasks` must be at least {row.least_tasks} for architecture '{name}', "
            f"got {n_tasks}."
        )
    return row
