"""What a source is asked for."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from taskdisc.errors import ImageSetError, SettingError
from taskdisc.images.image_set import Progress

OWN: Literal["own"] = "own"
Size: TypeAlias = int | Literal["own"] | None
"""A side [pixels]; `own` for images as large as they are there; None for the source's usual."""


@dataclass(frozen=True)
class Request:
    """One call of `load_images`, checked, as a source's loader gets it.

    Attributes:
        source: name of the source, for error sentences.
        root: where the user says that the images are, or None.
        split: name of the split.
        download: whether missing images may be fetched.
        size: side [pixels] that images are to have, `own`, or None for the source's usual.
        cache: folder of decoded images, or None to decode in memory.
        progress: called while images are decoded.
    """

    source: str
    root: Path | None = None
    split: str = "train"
    download: bool = False
    size: Size = None
    cache: Path | None = None
    progress: Progress | None = None

    @property
    def data_root(self) -> Path:
        """`root`, or the folder of downloaded sets."""
        return self.root or data_folder()

    def side(self, usual: int | None) -> int | None:
        """The side [pixels] that images are to have; None to leave them as they are.

        Args:
            usual: the source's, where none is asked for.
        """
        if self.size == OWN:
            return None
        return usual if self.size is None else self.size

    def check_split(self, splits: tuple[str, ...], why: str = "") -> None:
        """Refuse a split that is not one of `splits`; `why` explains the source's division."""
        if self.split not in splits:
            raise SettingError(
                f"`split` must be {' or '.join(splits)} for '{self.source}', "
                f"got {self.split!r}{': ' + why if why else ''}."
            )

    def check_root(self, what: str) -> Path:
        """`root`, for a source that has no place of its own; `what` says what it must be.

        Raises:
            SettingError: no root was given.
            ImageSetError: it does not exist.
        """
        if self.root is None:
            raise SettingError(
                f"`root` must be {what} for source '{self.source}', got None; give it with --root."
            )
        if not self.root.exists():
            raise ImageSetError(f"`root` must be {what}, got '{self.root}', which does not exist.")
        return self.root

    def missing(self, what: str, can_download: bool = True) -> ImageSetError:
        """The error for images that are not there, with its cure."""
        cure = "fetch them with --download or say where they are with --root"
        if not can_download:
            cure = "say where they are with --root"
        return ImageSetError(
            f"The images of '{self.source}' must be {what} in '{self.data_root}', "
            f"got nothing there; {cure}."
        )


def data_folder() -> Path:
    """Where downloaded sets live: ``$TASKDISC_DATA`` or ``~/.cache/taskdisc/data``."""
    place = os.environ.get("TASKDISC_DATA")
    return Path(place).expanduser() if place else Path.home() / ".cache" / "taskdisc" / "data"
