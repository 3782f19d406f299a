import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from image_files import class_files, encoded, pixels, write_tree, write_zip

from taskdisc.errors import ImageSetError
from taskdisc.images import load_images
from taskdisc.images.cache import cached

IMAGES = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)


class Batches:
    """Counts how often the array is made."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> Iterator[np.ndarray]:
        self.made += 1
        yield IMAGES[:3]
        yield IMAGES[3:]


@pytest.fixture
def batches() -> Batches:
    return Batches()


def test_made_once_then_mapped(tmp_path: Path, batches: Batches) -> None:
    for _ in range(2):
        images = cached(tmp_path / "new" / "cache", "key", IMAGES.shape, batches)
        assert np.array_equal(images, IMAGES)
        assert isinstance(images, np.memmap)
        assert not images.flags.writeable
    assert batches.made == 1
    assert os.listdir(tmp_path / "new" / "cache") == ["key"]


@pytest.mark.parametrize("damage", ["cut", "empty", "junk", "shape", "pickle", "gone"])
def test_a_torn_entry_is_made_anew(tmp_path: Path, batches: Batches, damage: str) -> None:
    cached(tmp_path, "key", IMAGES.shape, batches)
    file = tmp_path / "key" / "images.npy"
    whole = file.read_bytes()
    file.unlink()
    if damage == "shape":
        np.save(file, IMAGES[:2])
    elif damage == "pickle":
        np.save(file, np.array([None]), allow_pickle=True)
    elif damage != "gone":
        file.write_bytes({"cut": whole[:-1], "empty": b"", "junk": b"\x93NUMPY junk"}[damage])
    assert np.array_equal(cached(tmp_path, "key", IMAGES.shape, batches), IMAGES)
    assert batches.made == 2
    assert isinstance(cached(tmp_path, "key", IMAGES.shape, batches), np.memmap)
    assert batches.made == 2


def test_without_a_writable_cache_images_are_made_in_memory(
    tmp_path: Path, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    assert np.array_equal(cached(blocked, "key", IMAGES.shape, batches), IMAGES)
    assert np.array_equal(cached(None, "key", IMAGES.shape, batches), IMAGES)

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    assert np.array_equal(cached(tmp_path / "c", "key", IMAGES.shape, batches), IMAGES)
    assert os.listdir(tmp_path / "c") == []


def test_another_process_may_build_the_same_entry(tmp_path: Path) -> None:
    inner = Batches()

    def slow() -> Iterator[np.ndarray]:
        # While this build runs, another one starts and ends.
        cached(tmp_path, "key", IMAGES.shape, inner)
        yield IMAGES

    assert np.array_equal(cached(tmp_path, "key", IMAGES.shape, slow), IMAGES)
    assert inner.made == 1
    assert os.listdir(tmp_path) == ["key"]


def test_an_error_in_an_image_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield IMAGES[:1]
        raise ImageSetError("a torn image")

    with pytest.raises(ImageSetError, match="a torn image"):
        cached(tmp_path, "key", IMAGES.shape, broken)
    assert os.listdir(tmp_path) == []


def test_what_a_killed_build_left_is_removed(tmp_path: Path, batches: Batches) -> None:
    old, young = tmp_path / ".old.abc", tmp_path / ".young.abc"
    old.mkdir()
    young.mkdir()
    os.utime(old, (0, 0))
    cached(tmp_path, "key", IMAGES.shape, batches)
    assert young.exists()
    assert not old.exists()


def test_files_are_decoded_once_and_again_when_one_changes(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "set", class_files({"a": 2, "b": 2}))
    calls: list[tuple[int, int]] = []

    def load(size: int = 8) -> np.ndarray:
        found = load_images(
            "folder",
            root=root,
            size=size,
            cache=tmp_path / "cache",
            progress=lambda done, total: calls.append((done, total)),
        )
        return found.images

    first = load()
    load()
    assert calls == [(4, 4)]
    assert load(size=4).shape == (4, 4, 4, 3)
    assert len(calls) == 2
    (root / "a" / "0.png").write_bytes(encoded(pixels(77)))
    assert not np.array_equal(load()[0], first[0])
    assert len(calls) == 3


def test_a_zip_is_known_by_its_content(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", class_files({"a": 2, "b": 2}))
    load_images("folder", root=archive, cache=tmp_path / "cache")
    shutil.copy(archive, tmp_path / "b.zip")
    load_images("folder", root=tmp_path / "b.zip", cache=tmp_path / "cache")
    assert len(os.listdir(tmp_path / "cache")) == 1
    uncached = load_images("folder", root=archive, cache=False)
    assert not isinstance(uncached.images, np.memmap)
