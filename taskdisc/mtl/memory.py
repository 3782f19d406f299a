"""How many bytes of tensors are alive at once."""

import gc
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveTensors(TorchDispatchMode):
    """Within it, bytes of the storages that operations return, from then until they are freed.

    Views share a storage, which counts once. What an operation takes for itself while it runs is
    not seen, nor is memory that other libraries hold.

    Args:
        tensors: From before, that count too.

    Attributes:
        peak: Most bytes that were alive at once since `restart`.
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        for tensor in tensors:
            self._see(tensor.untyped_storage())

    def restart(self) -> None:
        """Forget the peak, not what is alive."""
        self.peak = self._live

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        for value in tree_iter((args, kwargs)):
            if isinstance(value, Tensor):
                # From before, if not known yet: a view of it that is returned is nothing new.
                self._known.add(value.untyped_storage())
        found = function(*args, **(kwargs or {}))
        for value in tree_iter(found):
            if isinstance(value, Tensor):
                self._see(value.untyped_storage())
        return found

    def _see(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        self._live += storage.nbytes()
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._free, storage.nbytes()).atexit = False

    def _free(self, n_bytes: int) -> None:
        self._live -= n_bytes


class CudaMemory:
    """Within it, bytes that PyTorch's allocator has given out on a GPU, above those before it.

    Unlike `LiveTensors` it sees what operations take for themselves. What CUDA's libraries keep
    from their first use on counts if that is within it.

    Attributes:
        peak: As of `LiveTensors`.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __enter__(self) -> Self:
        self._before = torch.cuda.memory_allocated(self._device)
        self.restart()
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def restart(self) -> None:
        """Forget the peak, not what is given out."""
        torch.cuda.reset_peak_memory_stats(self._device)

    @property
    def peak(self) -> int:
        return torch.cuda.max_memory_allocated(self._device) - self._before


Meter = LiveTensors | CudaMemory


def memory_meter(device: str, module: nn.Module) -> Meter:
    """A meter for the training of a module, which is on the CPU; garbage of before is gone."""
    gc.collect()
    if device == "cpu":
        return LiveTensors([*module.parameters(), *module.buffers()])
    return CudaMemory(torch.device(device))
