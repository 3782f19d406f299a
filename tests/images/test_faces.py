"""CelebA from drawn faces in its published files."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import ATTRIBUTES, HEIGHT, WIDTH, attributes, draw_faces, name_of
from image_files import class_files, encoded, pixels, write_tree, write_zip

from taskdisc.errors import ImageSetError, SettingError
from taskdisc.images import load_images

N = 20


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_faces(tmp_path_factory.mktemp("faces"), N)


def test_lists_are_read_as_published(faces: Path) -> None:
    known = attributes(N, np.random.default_rng(0))
    everything = load_images("celeba", root=faces, split="all")
    assert list(everything.targets) == ATTRIBUTES
    assert np.array_equal(np.stack(list(everything.targets.values()), axis=1), known)
    assert everything.classes["Smiling"] == ["not Smiling", "Smiling"]
    assert everything.images.shape == (N, 32, 32, 3) and not everything.notes
    of_splits = {"train": [*range(8), *range(10, 18)], "val": [8, 18], "test": [9, 19]}
    for split, positions in of_splits.items():
        part = load_images("celeba", root=faces, split=split)
        assert np.array_equal(part.images, everything.images[positions])
        assert np.array_equal(part.targets["Young"], everything.targets["Young"][positions])


def test_the_images_own_size(faces: Path) -> None:
    own = load_images("celeba", root=faces, split="all", size="own")
    assert own.images.shape == (N, HEIGHT, WIDTH, 3) and isinstance(own.images, np.memmap)
    small = load_images("celeba", root=faces, split="all")
    assert np.array_equal(own.resized(32).images, small.images)


def test_the_folder_of_the_files_itself_and_packed_images_serve_as_well(
    faces: Path, tmp_path: Path
) -> None:
    folder = faces / "celeba"
    images = {
        f"img_align_celeba/{file.name}": file.read_bytes()
        for file in (folder / "img_align_celeba").iterdir()
    }
    for file in folder.glob("*.txt"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    write_zip(tmp_path / "img_align_celeba.zip", images)
    packed = load_images("celeba", root=tmp_path, split="test", size="own")
    assert packed.content_hash() == (
        load_images("celeba", root=folder, split="test", size="own").content_hash()
    )


def test_faces_of_other_sizes_are_resized_and_said_so(tmp_path: Path) -> None:
    root = draw_faces(tmp_path, N, shapes={3: (300, 200), 4: (64, 64), 8: (WIDTH, HEIGHT)})
    words = "3 of 20 images are not 178 x 218 pixels, and were cut and resized to that"
    for _ in range(2):  # the second time from the cache
        own = load_images("celeba", root=root, split="all", size="own")
        assert own.images.shape == (N, HEIGHT, WIDTH, 3)
        assert own.notes == (words,) == own.take([0]).notes
    assert load_images("celeba", root=root, split="test", size="own").notes == ()
    assert load_images("celeba", root=root, split="all", size="own", cache=False).notes == (words,)


def changed(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_text(change((folder / name).read_text()))

    return damage


def image_gone(folder: Path) -> None:
    (folder / "img_align_celeba" / name_of(5)).unlink()


def torn_image(folder: Path) -> None:
    (folder / "img_align_celeba" / name_of(5)).write_bytes(b"torn")


LIST, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"


@pytest.mark.parametrize(
    ("damage", "split", "words"),
    [
        (changed(LIST, lambda t: t[:-40]), "all", "'000020.jpg': "),
        (changed(LIST, lambda t: t[: t.rindex("000020")]), "all", "Line 1 .* got '20' and 19 of"),
        (changed(LIST, lambda t: ""), "all", "Line 2 of .* must name the attributes, .* nothing"),
        (changed(LIST, lambda t: t.replace("Young", "Male")), "all", "Line 2 .* each once"),
        (changed(LIST, lambda t: t.replace("-1", " 0", 1)), "all", "must have 40 values, 1 or -1"),
        (changed(LIST, lambda t: t.replace("000002", "000001")), "all", "'000001.jpg' twice"),
        (changed(PARTITION, lambda t: t.replace("9.jpg 1", "9.jpg 3")), "val", "Line 9 of .* 1 or"),
        (
            changed(PARTITION, lambda t: "".join(t.splitlines(True)[:2])),
            "train",
            r"000003.jpg' \(18 are missing\)",
        ),
        (changed(PARTITION, lambda t: t.replace("jpg 2", "jpg 0")), "test", "of the split 'test'"),
        (lambda folder: (folder / PARTITION).unlink(), "train", "must be a text file"),
        (image_gone, "all", r"000006.jpg' must be an image of CelebA, .* \(1 of 20 are missing"),
        (torn_image, "all", "000006.jpg' must be a whole image"),
    ],
)
def test_damaged_files_are_named(
    tmp_path: Path, damage: Callable[[Path], None], split: str, words: str
) -> None:
    folder = draw_faces(tmp_path, N) / "celeba"
    damage(folder)
    with pytest.raises(ImageSetError, match=words):
        load_images("celeba", root=tmp_path, split=split)


def test_the_split_all_needs_no_partition(tmp_path: Path) -> None:
    folder = draw_faces(tmp_path, 2) / "celeba"
    (folder / PARTITION).unlink()
    assert len(load_images("celeba", root=tmp_path, split="all")) == 2


def test_own_size_of_every_other_source(tmp_path: Path) -> None:
    assert load_images("digits", size="own").images.shape == (1797, 8, 8, 3)
    root = write_tree(tmp_path / "set", class_files({"a": 2}, side=9))
    assert load_images("folder", root=root, size="own").images.shape == (2, 9, 9, 3)
    write_tree(root, {"a/9.png": encoded(pixels(0, 10))})
    with pytest.raises(
        ImageSetError, match=r"must have 9 x 9 pixels like .* give a size in pixels"
    ):
        load_images("folder", root=root, size="own")
    np.save(tmp_path / "a.npy", np.zeros((3, 7, 5, 3), np.uint8))
    whole = load_images("arrays", root=tmp_path / "a.npy", size="own")
    assert whole.images.shape == (3, 7, 5, 3)
    with pytest.raises(SettingError, match=r"`size` must be .* 1024 .* or own, got 'large'"):
        load_images("digits", size="large")  # type: ignore[arg-type]


def test_faces_are_drawn_alike_every_time(faces: Path, tmp_path: Path) -> None:
    def digest(root: Path) -> str:
        files = sorted((root / "celeba").rglob("*.*"))
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()

    assert digest(faces) == digest(draw_faces(tmp_path, N))
