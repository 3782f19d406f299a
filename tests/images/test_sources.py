import hashlib
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import class_files, encoded, pixels, tiny_imagenet_files, write_tree, write_zip

from taskdisc.errors import ImageSetError, SettingError
from taskdisc.images import SOURCES, load_images
from taskdisc.images.cifar100 import COARSE, COARSE_OF_FINE, FINE_NAMES
from taskdisc.images.contact_sheet import summary

# The fine -> coarse numbers as every copy of CIFAR-100 has them, one digit group per fine class.
KNOWN_COARSE = """
4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 9 11 5 5
19 8 8 15 13 14 17 18 10 16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 16 12 9 13 15
13 16 19 2 4 6 19 5 5 8 19 18 1 2 15 6 0 17 8 14 13
"""


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_refuses_an_unknown_split(source: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"`split` must be train"):
        load_images(source, root=tmp_path, split="tset")


@pytest.mark.parametrize("source", ["cifar10", "cifar100", "tiny-imagenet", "celeba"])
def test_missing_images_come_with_a_cure(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKDISC_DATA", str(tmp_path / "data"))
    for root in (None, tmp_path):
        with pytest.raises(ImageSetError, match=r"--download or .* --root"):
            load_images(source, root=root)


@pytest.mark.parametrize(
    ("source", "settings", "words"),
    [
        ("cifar", {}, "`source` must be an image set, got 'cifar': did you mean 'cifar10'"),
        ("digits", {"size": 0}, "`size` must be a whole number from 1"),
        ("digits", {"root": "here"}, "`root` must be left out for 'digits'"),
        ("digits", {"split": "test"}, "`split` must be train or all .* got 'test'"),
        ("folder", {}, "`root` must be the folder or .zip .* --root"),
        ("arrays", {}, "`root` must be a .npz .* --root"),
    ],
)
def test_bad_settings(source: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        load_images(source, **settings)


def test_importing_is_light() -> None:
    script = (
        "import sys, taskdisc.images;"
        "print({'torch', 'torchvision', 'sklearn', 'PIL', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_digits() -> None:
    digits = load_images("digits")
    assert digits.images.shape == (1797, 32, 32, 3)
    assert digits.images.min() == 0
    assert digits.images.max() == 255
    assert summary(digits)["targets"]["digit"]["3"] == 183
    assert load_images("digits", split="all").content_hash() == digits.content_hash()
    assert load_images("digits", size=8).images.shape == (1797, 8, 8, 3)


def write_cifar(
    monkeypatch: pytest.MonkeyPatch, root: Path, dataset: type, batches: dict[str, dict[str, Any]]
) -> None:
    """The published form of CIFAR, tiny, with torchvision's list of checksums set to match it."""
    sums = {}
    for name, content in batches.items():
        packed = pickle.dumps(content)
        write_tree(root / dataset.base_folder, {name: packed})  # type: ignore[attr-defined]
        sums[name] = hashlib.md5(packed).hexdigest()
    meta = dataset.meta["filename"]  # type: ignore[attr-defined]
    monkeypatch.setitem(dataset.meta, "md5", sums.pop(meta))  # type: ignore[attr-defined]
    test = [[name, md5] for name, md5 in sums.items() if name.startswith("test")]
    train = [[name, md5] for name, md5 in sums.items() if not name.startswith("test")]
    monkeypatch.setattr(dataset, "train_list", train)
    monkeypatch.setattr(dataset, "test_list", test)


def flat(seeds: range) -> np.ndarray:
    """Images as CIFAR's files hold them: uint8 [n, 3072], channel by channel."""
    return np.stack([pixels(seed, 32).transpose(2, 0, 1).ravel() for seed in seeds])


def test_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    names = list("abcdefghij")
    batches: dict[str, dict[str, Any]] = {
        "data_batch_1": {"data": flat(range(2)), "labels": [9, 0]},
        "data_batch_2": {"data": flat(range(2, 4)), "labels": [1, 1]},
        "test_batch": {"data": flat(range(4, 5)), "labels": [3]},
        "batches.meta": {"label_names": names},
    }
    write_cifar(monkeypatch, tmp_path, CIFAR10, batches)
    for root in (tmp_path, tmp_path / "cifar-10-batches-py"):
        train = load_images("cifar10", root=root)
        assert train.targets["class"].tolist() == [9, 0, 1, 1]
        assert train.classes == {"class": names}
        assert all(np.array_equal(train.images[i], pixels(i, 32)) for i in range(4))
    assert load_images("cifar10", root=tmp_path, split="test", size=16).images.shape[1] == 16
    # A file that is not what was published is never unpickled.
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(print))
    with pytest.raises(ImageSetError, match="known checksums"):
        load_images("cifar10", root=tmp_path)


def test_cifar100_as_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR100

    batches: dict[str, dict[str, Any]] = {
        "train": {"data": flat(range(3)), "fine_labels": [0, 99, 1], "coarse_labels": [4, 13, 1]},
        "test": {"data": flat(range(1)), "fine_labels": [5], "coarse_labels": [6]},
        "meta": {"fine_label_names": FINE_NAMES, "coarse_label_names": list(COARSE)},
    }
    write_cifar(monkeypatch, tmp_path, CIFAR100, batches)
    train = load_images("cifar100", root=tmp_path)
    assert train.targets["fine"].tolist() == [0, 99, 1]
    assert train.targets["coarse"].tolist() == [4, 13, 1]
    assert len(load_images("cifar100", root=tmp_path, split="test")) == 1


def test_a_download_that_fails_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", no_network)
    monkeypatch.setattr("torchvision.datasets.celeba.download_file_from_google_drive", no_network)
    monkeypatch.setattr("torchvision.datasets.utils.download_url", no_network)
    for source in ("cifar10", "cifar100", "tiny-imagenet", "celeba"):
        with pytest.raises(ImageSetError, match=f"'{source}' could not be downloaded .*no network"):
            load_images(source, root=tmp_path, download=True)


def test_the_coarse_table_is_the_official_one() -> None:
    assert COARSE_OF_FINE.tolist() == [int(number) for number in KNOWN_COARSE.split()]
    assert len(set(FINE_NAMES)) == 100
    assert list(COARSE) == sorted(COARSE)


def test_cifar100_as_image_folders(tmp_path: Path) -> None:
    files = class_files({"worm": 1, "apple": 2}, side=32, head="train/")
    files |= class_files({"bee": 1}, side=32, head="test/")
    nested = {f"cifar100/{name}": content for name, content in files.items()}
    roots = [
        write_tree(tmp_path / "plain", files),
        write_tree(tmp_path / "nested", nested),
        write_zip(tmp_path / "plain.zip", files),
        write_zip(tmp_path / "nested.zip", nested),
    ]
    for root in roots:
        train = load_images("cifar100", root=root)
        assert train.targets["fine"].tolist() == [0, 0, 99]
        assert train.targets["coarse"].tolist() == [4, 4, 13]
        assert train.images.shape == (3, 32, 32, 3)
        assert len(load_images("cifar100", root=root, split="test")) == 1
    (roots[0] / "train" / "aple").mkdir()
    write_tree(roots[0], {"train/aple/0.png": encoded(pixels(0, 32))})
    with pytest.raises(ImageSetError, match=r"got 'aple' .* did you mean 'apple'"):
        load_images("cifar100", root=roots[0])
    odd = write_tree(tmp_path / "odd", files | {"train/apple/9.png": encoded(pixels(0, 16))})
    with pytest.raises(ImageSetError, match=r"9.png' must have 32 x 32 pixels .* got 16 x 16"):
        load_images("cifar100", root=odd)
    assert len(load_images("cifar100", root=odd, size=32)) == 4


def test_tiny_imagenet(tmp_path: Path) -> None:
    files = tiny_imagenet_files()
    tree = write_tree(tmp_path / "tree", files)
    roots = [tree, tree / "tiny-imagenet-200", write_zip(tmp_path / "tiny-imagenet-200.zip", files)]
    sets = [load_images("tiny-imagenet", root=root) for root in [*roots, tmp_path]]
    assert len({found.content_hash() for found in sets}) == 1
    for found in sets:
        assert found.images.shape == (6, 64, 64, 3)
        assert found.targets["class"].tolist() == [0, 0, 1, 1, 2, 2]
        assert found.classes["class"] == ["teapot", "crane (n01)", "crane (n02)"]
        assert np.ptp(found.images[0].astype(int), axis=2).max() == 0  # the grey one
    val = load_images("tiny-imagenet", root=roots[2], split="val", size=32)
    assert val.targets["class"].tolist() == [0, 1, 2]
    assert val.images.shape == (3, 32, 32, 3)


@pytest.mark.parametrize(
    ("name", "content", "split", "words"),
    [
        ("wnids.txt", None, "train", "must hold Tiny ImageNet's wnids.txt"),
        ("wnids.txt", b"", "train", "must name classes"),
        ("wnids.txt", b"n01", "train", "must be listed in wnids.txt, got 'n02'"),
        ("words.txt", None, "train", "words.txt' must be a text file, got nothing there"),
        ("words.txt", b"\xff\xfe", "train", "words.txt' must be UTF-8 text"),
        ("val/val_annotations.txt", b"val_9.JPEG\tn01\n", "val", "Line 1 of .* must name an image"),
        ("train/n07/images/", b"", "train", "Class folder '.*n07' must hold at least one image"),
        ("val/images/val_0.JPEG", b"torn", "val", "val_0.JPEG' must be a whole image"),
    ],
)
def test_a_damaged_tiny_imagenet_is_named(
    tmp_path: Path, name: str, content: bytes | None, split: str, words: str
) -> None:
    files = tiny_imagenet_files("")
    if content is None:
        del files[name]
    else:
        files[name] = content
    with pytest.raises(ImageSetError, match=words):
        load_images("tiny-imagenet", root=write_zip(tmp_path / "t.zip", files), split=split)


def test_arrays(tmp_path: Path) -> None:
    images = np.stack([pixels(i) for i in range(3)])
    kinds = np.array([7, -2, 7])
    np.savez(tmp_path / "a.npz", images=images, kind=kinds, flag=np.array([True, False, True]))
    found = load_images("arrays", root=tmp_path / "a.npz")
    assert np.array_equal(found.images, images)
    assert found.classes == {"kind": ["-2", "7"], "flag": ["False", "True"]}
    assert found.targets["kind"].tolist() == [1, 0, 1]
    np.save(tmp_path / "a.npy", images)
    mapped = load_images("arrays", root=tmp_path / "a.npy")
    assert isinstance(mapped.images, np.memmap)
    assert mapped.content_hash() == found.content_hash()
    assert load_images("arrays", root=tmp_path / "a.npy", size=4).images.shape == (3, 4, 4, 3)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": np.zeros((2, 3, 8, 8), np.uint8)}, "Channels come last"),
        ({"images": np.zeros((2, 8, 8, 3))}, "must be an array uint8"),
        ({"pictures": np.zeros((2, 8, 8), np.uint8)}, "'images', got pictures"),
        ({"images": np.array([None])}, "no pickles"),
        ({"images": np.zeros((2, 8, 8), np.uint8), "k": np.zeros(3, int)}, "`k` .* must be integ"),
        ({"images": np.zeros((2, 8, 8), np.uint8), "k": np.zeros(2)}, "`k` .* got float64"),
    ],
)
def test_bad_arrays(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ImageSetError, match=words):
        load_images("arrays", root=tmp_path / "a.npz")


@pytest.mark.parametrize(
    "content", [b"", b"text", pickle.dumps([1]), b"PK\x03\x04torn", b"\x93NUMPY"]
)
def test_what_is_no_array_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ImageSetError, match=r"a.npy' must be a .npz or .npy of plain arrays"):
        load_images("arrays", root=tmp_path / "a.npy")


def test_a_zip_of_other_files_is_no_npz(tmp_path: Path) -> None:
    photographs = write_zip(tmp_path / "a.npz", class_files({"a": 9}))
    with pytest.raises(
        ImageSetError, match=r"a.npz' must hold an array 'images', got a/0.png, .*, …\.$"
    ):
        load_images("arrays", root=photographs)
    np.savez(tmp_path / "b.npz", images=np.zeros((2, 8, 8), np.uint8))
    with zipfile.ZipFile(tmp_path / "b.npz", "a") as archive:
        archive.writestr("notes.txt", "text")
    with pytest.raises(ImageSetError, match=r"'notes.txt' is no array"):
        load_images("arrays", root=tmp_path / "b.npz")


def test_the_real_cifar100(shared_data: Callable[[str], Path]) -> None:
    found = load_images("cifar100", root=shared_data("cifar100.zip"), split="test")
    assert found.images.shape == (10_000, 32, 32, 3)
    counts = summary(found)["targets"]
    assert set(counts["fine"].values()) == {100}
    assert set(counts["coarse"].values()) == {500}


def test_the_real_tiny_imagenet(shared_data: Callable[[str], Path]) -> None:
    root = shared_data("tiny-imagenet-subset.zip")
    found = load_images("tiny-imagenet", root=root, split="val")
    assert found.images.shape == (1585, 64, 64, 3)
    counts = summary(found)["targets"]["class"]
    assert len(counts) == 200
    assert counts["Egyptian cat"] == counts["teapot"] == 50
