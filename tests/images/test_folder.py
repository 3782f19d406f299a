import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import class_files, encoded, pixels, write_tree, write_zip
from PIL import Image

from taskdisc.errors import ImageSetError, SettingError
from taskdisc.images import load_images
from taskdisc.images.decode import decode

PNG = encoded(pixels(0))
CLASSES = {"ant": 2, "bee": 1}


def test_folder_and_zip_are_the_same_set(tmp_path: Path) -> None:
    files = class_files(CLASSES)
    noise = {
        "notes.txt": b"text",
        "ant/Thumbs.db": b"",
        ".DS_Store": b"",
        "__MACOSX/ant/._0.png": b"x",
    }
    noise["ant/.hidden.png"] = b"no image"
    sets = [
        load_images("folder", root=write_tree(tmp_path / "plain", files)),
        load_images("folder", root=write_tree(tmp_path / "noisy", files | noise)),
        load_images("folder", root=write_zip(tmp_path / "plain.zip", files | noise)),
        load_images(
            "folder", root=write_zip(tmp_path / "n.zip", class_files(CLASSES, head="top/x/"))
        ),
    ]
    assert len({found.content_hash() for found in sets}) == 1
    for found in sets:
        assert found.images.shape == (3, 32, 32, 3)
        assert found.targets["class"].tolist() == [0, 0, 1]
        assert found.classes == {"class": ["ant", "bee"]}


def test_splits_share_their_class_numbers(tmp_path: Path) -> None:
    files = class_files({"b": 2, "a": 1}, head="train/") | class_files({"c": 1}, head="valid/")
    for root in (write_tree(tmp_path / "set", files), write_zip(tmp_path / "set.zip", files)):
        assert load_images("folder", root=root).targets["class"].tolist() == [0, 1, 1]
        assert load_images("folder", root=root, split="val").targets["class"].tolist() == [2]
        with pytest.raises(SettingError, match=r"`split` must be train or val .* got 'test'"):
            load_images("folder", root=root, split="test")


def test_images_without_classes_are_a_set_without_targets(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"b.png": PNG, "a.JPG": encoded(pixels(1), "JPEG")})
    found = load_images("folder", root=root, size=8)
    assert found.targets == {}
    assert np.array_equal(found.images[1], pixels(0))


def test_a_linked_class_folder_is_read_and_a_loop_ends(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "set", class_files(CLASSES))
    (root / "cat").symlink_to(write_tree(tmp_path / "cats", {"0.png": PNG}))
    (root / "cat" / "loop").symlink_to(root)
    assert set(load_images("folder", root=root).classes["class"]) == {"ant", "bee", "cat"}


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda tmp: tmp / "nowhere", "`root` must be .* does not exist"),
    "empty": (lambda tmp: tmp, "`root` must hold image files .* got none"),
    "text only": (lambda tmp: write_tree(tmp, {"a/b.txt": b"text"}), "must hold image files"),
    "no zip": (
        lambda tmp: write_tree(tmp, {"a.zip": b"text"}) / "a.zip",
        "must be a folder or a .zip, .* not a zip file",
    ),
    "empty class": (
        lambda tmp: write_tree(tmp, {"a/0.png": PNG, "b/x.txt": b""}),
        "Class folder '.*b' must hold at least one image",
    ),
    "empty class in zip": (
        lambda tmp: write_zip(tmp / "s.zip", {"a/0.png": PNG, "b/": b""}),
        "Class folder '.*s.zip!b' must hold",
    ),
    "stray": (lambda tmp: write_tree(tmp, {"a/0.png": PNG, "b.png": PNG}), "b.png' beside them"),
    "truncated": (
        lambda tmp: write_tree(tmp, {"a/0.png": PNG[:90]}),
        "0.png' must be a whole image",
    ),
    "late": (
        lambda tmp: write_tree(tmp, {"a/0.png": PNG, "a/1.png": b"", "a/2.png": PNG}),
        "1.png' must be a whole image",
    ),
    "text as image": (
        lambda tmp: write_zip(tmp / "s.zip", {"a/0.jpg": b"text"}),
        r"s.zip!a/0.jpg' must be a whole image, .*cannot identify image file\)",
    ),
    "absolute": (
        lambda tmp: write_zip(tmp / "s.zip", {"/a/0.png": PNG}),
        "only relative paths .* '/a/0.png'",
    ),
    "upwards": (lambda tmp: write_zip(tmp / "s.zip", {"a/../../0.png": PNG}), "relative paths"),
    "drive": (lambda tmp: write_zip(tmp / "s.zip", {"C:\\a\\0.png": PNG}), "relative paths"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_folder_is_one_sentence(tmp_path: Path, name: str) -> None:
    make, words = BAD[name]
    with pytest.raises(ImageSetError, match=words) as caught:
        load_images("folder", root=make(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    root = write_zip(tmp_path / "s.zip", {"a/0.png": PNG})
    content = bytearray(root.read_bytes())
    content[80] ^= 255
    root.write_bytes(content)
    with pytest.raises(ImageSetError, match=r"s.zip!a/0.png' cannot be read: bad crc"):
        load_images("folder", root=root)
    with zipfile.ZipFile(root, "w"):
        pass
    with pytest.raises(ImageSetError, match="must hold image files"):
        load_images("folder", root=root)


def test_every_kind_of_pixel_becomes_colour(tmp_path: Path) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    rgb = np.repeat(grey[..., None], 3, axis=2)

    def through(image: Image.Image, form: str = "PNG") -> np.ndarray:
        path = tmp_path / f"image.{form.lower()}"
        image.save(path)
        return decode(path.read_bytes(), "image")

    one = Image.fromarray(grey)
    assert np.array_equal(through(one), rgb)
    assert np.array_equal(through(Image.fromarray(grey.astype(np.uint16) * 256)), rgb)
    assert np.array_equal(through(one.convert("P")), rgb)
    clear = np.zeros((8, 8, 4), np.uint8)
    assert (through(Image.fromarray(clear)) == 255).all()
    palette = one.convert("P")
    palette.info["transparency"] = bytes([0] * 32 + [255] * 224)
    assert np.array_equal(through(palette), np.where(rgb < 32, 255, rgb))
    assert through(one.convert("CMYK"), "TIFF").shape == (8, 8, 3)
    with pytest.raises(ImageSetError, match="'image' must be a whole image"):
        through(one.convert("F"), "TIFF")


def test_a_photograph_stands_upright(tmp_path: Path) -> None:
    image = Image.fromarray(pixels(0))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "a.png", exif=exif)
    upright = decode((tmp_path / "a.png").read_bytes(), "a.png")
    assert np.array_equal(upright, pixels(0)[::-1, ::-1])
