"""Gradients of several tasks with respect to the parameters that they share."""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn
from torchjd.autogram import Engine
from torchjd.autojac import jac

from taskdisc.errors import SettingError
from taskdisc.mtl.weightings.base import Gradients

MOST_BYTES = 2**30
"""A Jacobian that takes more of memory gives way to the Gramian alone, under `auto`."""


class SharedGradients:
    """Gradients of the tasks' losses with respect to shared parameters.

    The Jacobian is had task by task, which on a CPU takes less time than all tasks at once. The
    Gramian alone (Quinton and Rey 2024, algorithm 3, by torchjd's engine) holds the gradients of
    all tasks one module at a time, but goes back for all tasks at once. In small networks that
    takes more memory than the Jacobian (`taskdisc bench mtl` has both); it is for those with so
    many parameters that the Jacobian does not fit.

    Args:
        network: The network.
        names: Of its shared parameters.
        route: `auto`, `jacobian` or `gramian`.
        n_tasks: For how many tasks memory is reckoned.

    Attributes:
        parameters: The shared parameters, in the network's order.
        gramian_alone: Whether the Gramian is to be had without the Jacobian.

    Raises:
        SettingError: `gramian`, of a network that it cannot be had of.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], route: str, n_tasks: int) -> None:
        self.parameters = [p for name, p in network.named_parameters() if name in set(names)]
        n_bytes = n_tasks * sum(p.numel() * p.element_size() for p in self.parameters)
        wanted = route == "gramian" or (route == "auto" and n_bytes > MOST_BYTES)
        self._modules = _owners(network, self.parameters) if wanted and self.parameters else None
        if route == "gramian" and self.parameters and not self._modules:
            raise SettingError(
                "`training.gradients` must be jacobian or auto for a network with batch statistics "
                "or parameters beside submodules, which the Gramian alone cannot be had of, got "
                "gramian."
            )
        self.gramian_alone = bool(self._modules)

    def engine(self) -> Engine | None:
        """What gives the Gramian of the next forward pass alone; None where that is not wanted.

        It watches forward passes and fails where one of them has no backward pass, so each step
        that asks for the Gramian has one of its own.
        """
        return Engine(*self._modules, batch_dim=None) if self._modules else None

    def of(
        self, losses: Tensor, outputs: Sequence[Tensor] = (), engine: Engine | None = None
    ) -> Gradients:
        """The gradients of losses [n_tasks]; the graph stays for what comes after.

        Args:
            losses: Of one forward pass.
            outputs: Of all tasks in that pass, where there is an engine.
            engine: From before that pass, to have the Gramian without the Jacobian.
        """
        if engine is None:
            return Gradients(lambda: self.jacobian(losses))
        # Modules that no loss reaches, as those of dropped tasks, need a backward pass too.
        whole = losses + 0 * torch.stack([output.float().sum() for output in outputs]).sum()
        gramian = mean_over_devices(engine.compute_gramian(whole))
        return Gradients(lambda: self.jacobian(losses), lambda: gramian)

    def jacobian(self, losses: Tensor) -> Tensor:
        """One gradient per loss, [n_tasks, n_shared]; a column of zeros if nothing is shared."""
        if not self.parameters:
            return losses.new_zeros(len(losses), 1)
        rows = jac(losses, self.parameters, retain_graph=True, parallel_chunk_size=1)
        return mean_over_devices(torch.cat([row.flatten(1) for row in rows], dim=1))

    def split(self, direction: Tensor) -> list[Tensor]:
        """A direction [n_shared] as one tensor per shared parameter."""
        if not self.parameters:
            return []
        parts = direction.split([p.numel() for p in self.parameters])
        return [part.view_as(p) for part, p in zip(parts, self.parameters, strict=True)]


def mean_over_devices(values: Tensor) -> Tensor:
    """The mean over the devices that train one network, detached; on one device the values."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    mean = values.detach().clone()
    distributed.all_reduce(mean)
    return mean / distributed.get_world_size()


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
