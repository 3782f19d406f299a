"""Gradients of several tasks with respect to the parameters that they share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchjd.autogram import Engine
from torchjd.autojac import jac

from taskdisc.mtl.weightings.base import Gradients

MOST_BYTES = 2**30
"""A Jacobian that takes more of memory gives way to the Gramian alone, under `auto`."""


class SharedGradients:
    """Gradients of the tasks' losses with respect to shared parameters.

    The Jacobian is had task by task, which on two cores takes less time than all tasks at once,
    and less than the Gramian without it (`taskdisc bench mtl`). The Gramian alone
    (Quinton and Rey 2024, algorithm 3, by torchjd's engine) never holds the gradients of all tasks.

    Args:
        network: The network.
        names: Of its shared parameters.
        route: `auto`, `jacobian` or `gramian`.
        n_tasks: For how many tasks memory is reckoned.

    Attributes:
        parameters: The shared parameters, in the network's order.
        gramian_alone: Whether weightings that need only the Gramian get it without the Jacobian.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], route: str, n_tasks: int) -> None:
        self.parameters = [p for name, p in network.named_parameters() if name in set(names)]
        n_bytes = n_tasks * sum(p.numel() * p.element_size() for p in self.parameters)
        wanted = route == "gramian" or (route == "auto" and n_bytes > MOST_BYTES)
        modules = _owners(network, self.parameters) if wanted and self.parameters else None
        self._engine = Engine(*modules, batch_dim=None) if modules else None
        self.gramian_alone = self._engine is not None

    def of(self, losses: Tensor) -> Gradients:
        """The gradients of losses [n_tasks]; the graph stays for what comes after."""
        engine = self._engine
        if engine is None:
            return Gradients(lambda: self.jacobian(losses))
        return Gradients(lambda: self.jacobian(losses), lambda: _gramian(engine, losses))

    def jacobian(self, losses: Tensor) -> Tensor:
        """One gradient per loss, [n_tasks, n_shared]; a column of zeros if nothing is shared."""
        if not self.parameters:
            return losses.new_zeros(len(losses), 1)
        rows = jac(losses, self.parameters, retain_graph=True, parallel_chunk_size=1)
        return torch.cat([row.flatten(1) for row in rows], dim=1)

    def split(self, direction: Tensor) -> list[Tensor]:
        """A direction [n_shared] as one tensor per shared parameter."""
        if not self.parameters:
            return []
        parts = direction.split([p.numel() for p in self.parameters])
        return [part.view_as(p) for part, p in zip(parts, self.parameters, strict=True)]


@torch.enable_grad()  # weightings ask without, where the engine does not find the graph
def _gramian(engine: Engine, losses: Tensor) -> Tensor:
    return engine.compute_gramian(losses)


def _owners(network: nn.Module, parameters: Sequence[Tensor]) -> list[nn.Module] | None:
    """The modules that hold just these parameters; None where the engine cannot take them.

    It refuses modules with running statistics, and cannot tell parameters of one module apart.
    """
    wanted = {id(p) for p in parameters}
    found = []
    for module in network.modules():
        own = {id(p) for p in module.parameters(recurse=False)}
        if not own & wanted:
            continue
        if own - wanted or any(True for _ in module.children()) or _keeps_statistics(module):
            return None
        found.append(module)
    return found


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats
