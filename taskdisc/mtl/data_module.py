"""A dataset of tasks, split and batched, for a trainer of Lightning."""

from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Subset

from taskdisc.errors import SettingError
from taskdisc.mtl.data import split_of
from taskdisc.mtl.dataset import TaskDataset


class TaskData(LightningDataModule):
    """Loaders of the training, validation and test images of a dataset.

    Attributes:
        split: Positions of the images of each part, `taskdisc.mtl.data.Split`.

    Args:
        dataset: The images with their labels.
        validation: Share of the images that chooses the epoch, in (0, 1).
        test: Share that measures the result, in (0, 1).
        batch: Images per batch, at least 1.
        workers: Processes that read images beside the training; 0 for none.
        seed: Of the split and of the order of training images.

    Raises:
        SettingError: a number breaks its rule.
        ImageSetError: a part would be empty.
    """

    def __init__(
        self,
        dataset: TaskDataset,
        *,
        validation: float = 0.15,
        test: float = 0.2,
        batch: int = 64,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, share in (("validation", validation), ("test", test)):
            if not 0 < share < 1:
                raise SettingError(f"`{name}` must be a share between 0 and 1, got {share!r}.")
        if validation + test >= 1:
            raise SettingError(
                "`validation` and `test` must leave images to train on, got "
                f"{validation} + {test}; take smaller shares."
            )
        for name, value, least in (("batch", batch, 1), ("workers", workers, 0), ("seed", seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise SettingError(
                    f"`{name}` must be a whole number of at least {least}, got {value!r}."
                )
        self.dataset = dataset
        self.split = split_of(len(dataset), validation, test, seed)
        self._options: dict[str, Any] = {"batch_size": batch, "num_workers": workers}
        self._order = torch.Generator().manual_seed(seed)

    def train_dataloader(self) -> DataLoader[Any]:
        """Training images, in another order every epoch."""
        return self._loader(self.split.train, shuffle=True, generator=self._order)

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation images, in their order."""
        return self._loader(self.split.validation)

    def test_dataloader(self) -> DataLoader[Any]:
        """Test images, in their order."""
        return self._loader(self.split.test)

    def _loader(self, positions: np.ndarray, **options: Any) -> DataLoader[Any]:
        return DataLoader(Subset(self.dataset, positions.tolist()), **self._options, **options)
