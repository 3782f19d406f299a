"""A trained network of a comparison, to use on images."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from taskdisc.classifiers import TRAINED, read_state
from taskdisc.errors import RunFolderError, SettingError
from taskdisc.folder import check_images
from taskdisc.images import ImageSet
from taskdisc.mtl.architectures.base import MultiTaskNetwork
from taskdisc.mtl.data import Split
from taskdisc.mtl.module import MultiTaskModule, check_says
from taskdisc.mtl.tasks import Task
from taskdisc.mtl.train import BEST, LAST, check_checkpoint, module_of
from taskdisc.studies.images import source_of
from taskdisc.studies.multi_task import ComparisonSettings, cells, work_of
from taskdisc.studies.run import FILES, study_of

AT_ONCE = 256
"""Images that go through the network at once."""


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A network with the weights of its chosen epoch, and what it was trained on.

    Called with images, uint8 [n, H, W, 3] of the side that it was trained on, it gives the outputs
    of each task by name, float32 [n, n_outputs] on the CPU: scores of the classes, of which the
    softmax is probabilities; one logit of each yes; or standardised real numbers, as the kind of
    the task is.

    Attributes:
        cell: Which of the comparison's: its row, its seed, and the task of a single-task row.
        network: In eval mode, on the CPU; `network.to("cuda")` moves it.
        tasks: In the order of the network's outputs, with the labels of `images`.
        images: Of the comparison.
        split: Of `images`; the network has not seen `split.test`.
    """

    cell: dict[str, Any]
    network: MultiTaskNetwork
    tasks: tuple[Task, ...]
    images: ImageSet
    split: Split
    _module: MultiTaskModule

    def prepared(self, images: np.ndarray) -> Tensor:
        """Images as `network` takes them, on its device.

        Args:
            images: uint8 [n, H, W, 3].

        Raises:
            SettingError: they are not of that kind, or of another side.
        """
        side = self.images.images.shape[1:]
        if images.dtype != np.uint8 or images.shape[1:] != side:
            shape = ", ".join(map(str, side))
            raise SettingError(
                f"`images` must be uint8 [n, {shape}], as those that the network was trained on, "
                f"got {images.dtype} {list(images.shape)}."
            )
        device = next(self.network.parameters()).device
        return self._module.to(device).normalised(torch.from_numpy(images).to(device))

    def __call__(self, images: np.ndarray) -> dict[str, Tensor]:
        # Of no image there are outputs too, of their right width.
        parts = np.array_split(images, max(1, -(-len(images) // AT_ONCE)))
        with torch.inference_mode():
            found = [self.network(self.prepared(part)) for part in parts]
        return {
            task.name: torch.cat([outputs[number] for outputs in found]).float().cpu()
            for number, task in enumerate(self.tasks)
        }


def load_network(folder: Path | str) -> LoadedNetwork:
    """The network of a training that a comparison has made, with the weights of its chosen epoch.

    Args:
        folder: Of the training, below that of the comparison: `runs/mtl-001/cells/0-equal-0`.

    Raises:
        RunFolderError: no folder of a comparison's training; a training that is not done, or a
            damaged one; settings or images that were changed since.
        SettingError: a weights file of the backbone is not there any more.
        ImageSetError: the images are missing or unreadable.
    """
    path = Path(folder)
    run = path.parent.parent
    number = re.match(r"[0-9]+(?=-)", path.name)
    if path.parent.name != FILES or number is None:
        raise RunFolderError(
            "the folder must be that of a training of a comparison, such as "
            f"runs/mtl-001/{FILES}/0-equal-0, got '{path}'."
        )
    _, settings = study_of(run)
    if not isinstance(settings, ComparisonSettings):
        raise RunFolderError(
            f"the run folder must be one that `taskdisc mtl` has made, got '{run}', which another "
            "command has made."
        )
    check_images(run, source_of(settings.images))
    trained = cells(settings)
    done = (path / BEST).is_file() and not (path / LAST).exists()
    if int(number[0]) >= len(trained) or not done:
        raise RunFolderError(
            f"the training in '{path}' must be done and have its {BEST}, got one that is not; "
            f"go on with: taskdisc mtl --resume {run}"
        )
    cell = trained[int(number[0])]
    work = work_of(settings, cell)
    module = module_of(
        work.images.images, work.tasks, work.split, work.row, main=work.main, seed=cell["seed"]
    )
    _load(path / BEST, module)
    return LoadedNetwork(
        cell,
        module.network.eval(),
        tuple(work.tasks),
        work.images,
        work.split,
        module,
    )


def _load(file: Path, module: MultiTaskModule) -> None:
    """Give a network the weights of a checkpoint, which must be of its training."""
    says = check_checkpoint(file)["says"]
    try:
        check_says(says, module.says)
        state = read_state(file, "the checkpoint must hold")
        saved = {name.removeprefix(TRAINED): value for name, value in state.items()}
        module.network.load_state_dict(saved)
    except (SettingError, RuntimeError, LookupError) as error:
        raise RunFolderError(
            f"'{file}' must hold the network that its folder and the settings of its comparison "
            "name, got another; restore it, or train it again."
        ) from error
