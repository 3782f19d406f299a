import re
from typing import Any

import numpy as np
import pytest

from taskdisc.errors import ImageSetError, SettingError
from taskdisc.images import ImageSet, as_image_set


def small_set(n: int = 6) -> ImageSet:
    images = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return ImageSet("array", images, {"kind": np.arange(n) % 2}, {"kind": ["even", "odd"]})


GOOD: dict[str, Any] = {
    "source": "array",
    "images": np.zeros((2, 4, 4, 3), np.uint8),
    "targets": {"kind": np.array([0, 1])},
    "classes": {"kind": ["a", "b"]},
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": np.zeros((2, 4, 4, 3))}, "`images` must be uint8 .* got float64"),
        ({"images": np.zeros((2, 4, 4), np.uint8)}, "`images` must be uint8"),
        ({"images": np.zeros((2, 4, 4, 1), np.uint8)}, "`images` must be uint8"),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8)}, "at least one image"),
        ({"images": [[1]]}, "`images` must be uint8 .* got list"),
        ({"targets": {"kind": np.array([0, 1, 0])}}, r"`targets\['kind'\]` must be int64 \[2\]"),
        ({"targets": {"kind": np.array([0.0, 1.0])}}, r"`targets\['kind'\]` .* got float64"),
        ({"targets": {"kind": [0, 1]}}, r"`targets\['kind'\]` .* got list"),
        ({"targets": {"kind": np.array([0, 2])}}, "from 0 to 1, got values from 0 to 2"),
        ({"targets": {"kind": np.array([-1, 0])}}, "from 0 to 1, got values from -1 to 0"),
        ({"classes": {}}, "`classes` must name the classes"),
        ({"classes": {"kind": ["a", "a"]}}, "must be different names"),
        ({"indices": np.array([0])}, "`indices` must be int64"),
    ],
)
def test_a_bad_field_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ImageSetError, match=words):
        ImageSet(**{**GOOD, **change})


def test_take_keeps_what_belongs_to_an_image() -> None:
    whole = small_set()
    part = whole.take([4, 1]).take(np.array([1, 0, 0]))
    assert part.indices.tolist() == [1, 4, 4]
    assert part.targets["kind"].tolist() == [1, 0, 0]
    assert np.array_equal(part.images, whole.images[[1, 4, 4]])
    assert part.hashes() == [whole.hashes()[i] for i in (1, 4, 4)]


@pytest.mark.parametrize("positions", [[6], [-1], [], [0.5], [True, False], [[0]]])
def test_take_refuses(positions: list[int]) -> None:
    with pytest.raises(SettingError, match="`positions` must be"):
        small_set().take(positions)


def test_hashes_follow_content() -> None:
    one = small_set()
    assert one.content_hash() == small_set().content_hash()
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in [*one.hashes(), one.content_hash()])
    assert one.content_hash() != one.take([1, 0, 2, 3, 4, 5]).content_hash()
    changed = one.images.copy()
    changed[3, 0, 0, 0] ^= 1
    differs = [a != b for a, b in zip(one.hashes(), as_image_set(changed).hashes(), strict=True)]
    assert differs == [False, False, False, True, False, False]
    # The same bytes in another shape are another image.
    flat = as_image_set(one.images.reshape(6, 4, 16, 3))
    assert not set(flat.hashes()) & set(one.hashes())


def test_resized_keeps_identity_and_antialiases() -> None:
    whole = small_set()
    assert whole.resized(8) is whole
    assert whole.resized(32).images.shape == (6, 32, 32, 3)
    assert whole.resized(32).targets is whole.targets
    # One-pixel stripes become even grey instead of one of their two colours.
    stripes = np.zeros((1, 64, 64), np.uint8)
    stripes[:, :, ::2] = 255
    assert np.ptp(as_image_set(stripes).resized(16).images[:, 2:-2, 2:-2].astype(int)) < 40


def test_resized_cuts_to_the_central_square() -> None:
    wide = np.zeros((1, 8, 16), np.uint8)
    wide[:, :, 4:12] = 200
    assert (as_image_set(wide).resized(8).images == 200).all()


@pytest.mark.parametrize("side", [0, -1, 1.5, True, 5000])
def test_resized_refuses(side: int) -> None:
    with pytest.raises(SettingError, match="`side` must be a whole number from 1 to 1024"):
        small_set().resized(side)


def test_target_defaults_to_the_first_and_suggests() -> None:
    assert small_set().target() == "kind"
    with pytest.raises(SettingError, match="did you mean 'kind'"):
        small_set().target("kinds")
    with pytest.raises(SettingError, match="without any classes"):
        as_image_set(small_set().images).target()


def test_plain_arrays_are_wrapped() -> None:
    whole = small_set()
    assert as_image_set(whole) is whole
    assert as_image_set(whole.images).images is whole.images
    grey = as_image_set(whole.images[..., 0])
    assert np.array_equal(grey.images, as_image_set(whole.images[..., :1]).images)
    assert (grey.images == whole.images[..., :1]).all()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 3, 8, 8), np.uint8), r"transpose\(0, 2, 3, 1\)"),
        (np.zeros((2, 8, 8, 3), np.float32), "0 … 255"),
        (np.zeros((2, 8, 8, 4), np.uint8), "C = 1 or 3"),
        (np.zeros((8, 8, 3), np.uint8), r"images\[None\]"),
        (np.zeros((8, 8), np.uint8), r"got uint8 \(8, 8\)"),
        (np.zeros((0, 8, 8), np.uint8), "at least one image"),
        ([1, 2], "got list"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, words: str) -> None:
    with pytest.raises(ImageSetError, match=words):
        as_image_set(array)
