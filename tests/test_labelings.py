import io
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskdisc.errors import SettingError
from taskdisc.labelings import (
    ablation,
    ablations,
    canonical,
    check_labelings,
    encode,
    evenly,
    from_hex,
    key,
    n_positives,
    random_labelings,
    read_arrays,
    read_labelings,
    to_hex,
)


def bits(text: str) -> np.ndarray:
    return np.array([int(c) for c in text], dtype=np.uint8)


@pytest.mark.parametrize(("n_images", "ratio", "n_pos"), [(50, 4, 10), (50, 1, 25), (5, 4, 1)])
def test_positives_of_a_ratio(n_images: int, ratio: int, n_pos: int) -> None:
    assert n_positives(n_images, ratio) == n_pos


@pytest.mark.parametrize(
    ("n_images", "ratio", "words"),
    [
        (50, 0, "`ratio` must be at least 1 .* got 0"),
        (50, -1, "`ratio` must be at least 1"),
        (52, 4, "multiple of `ratio` .* = 5, got 52; take 50 or 55 images"),
        (3, 4, "multiple of `ratio` .* = 5, got 3; take more images"),
        (0, 4, "multiple of `ratio`"),
    ],
)
def test_ratios_that_do_not_divide_the_images(n_images: int, ratio: int, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        n_positives(n_images, ratio)


@pytest.mark.parametrize(
    ("proposal", "n_pos", "labeling"),
    [
        ([0.1, 0.9, 0.5, 0.7], 2, "0101"),
        ([0.5, 0.5, 0.5, 0.5], 2, "1100"),  # equal entries in the order of the images
        ([0.0, 1.0, 1.0, 1.0], 2, "0110"),
        ([0.3, 0.2], 0, "00"),
        ([0.3, 0.2], 2, "11"),
        ([-1.0, -2.0, -3.0], 1, "100"),
        ([0.0, -0.0], 1, "10"),
    ],
)
def test_the_highest_entries_are_the_positives(
    proposal: list[float], n_pos: int, labeling: str
) -> None:
    encoded = encode(np.array(proposal), n_pos)
    assert encoded.dtype == np.uint8
    assert np.array_equal(encoded, bits(labeling))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8, bool])
def test_a_labeling_is_its_own_proposal(dtype: Any) -> None:
    labeling = bits("0110100")
    assert np.array_equal(encode(labeling.astype(dtype), 3), labeling)


def test_random_labelings_are_uniform_and_have_their_positives() -> None:
    labelings = random_labelings(4000, 10, 3, np.random.default_rng(0))
    assert labelings.dtype == np.uint8
    assert (labelings.sum(axis=1) == 3).all()
    # Binomial(4000, 0.3): a standard deviation of 0.7 %.
    assert labelings.mean(axis=0) == pytest.approx([0.3] * 10, abs=0.036)
    assert len({row.tobytes() for row in labelings}) == 120  # every one of 10 choose 3
    again = random_labelings(4000, 10, 3, np.random.default_rng(0))
    assert np.array_equal(labelings, again)


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("11000", "11000", 0),
        ("11000", "10100", 1 / 2),
        ("11000", "00110", 1),
        ("1110000000", "1100000001", 1 / 3),
        ("1100", "0011", 0),  # a flip at 1:1 is the same task
        ("1100", "1010", 1 / 2),
        ("111000", "110100", 1 / 3),
        ("111000", "001011", 1 / 3),  # nearer to the flip
        ("111", "111", 0),
        ("000", "000", 0),
    ],
)
def test_ablation(a: str, b: str, distance: float) -> None:
    assert ablation(bits(a), bits(b)) == pytest.approx(distance)
    assert ablation(bits(b), bits(a)) == pytest.approx(distance)


@pytest.mark.parametrize(("n_images", "n_pos"), [(20, 4), (20, 10), (7, 3)])
def test_ablation_is_a_distance(n_images: int, n_pos: int) -> None:
    labelings = random_labelings(12, n_images, n_pos, np.random.default_rng(0))
    for a in labelings:
        assert ablation(a, a) == 0
        for b, c in pairwise(labelings):
            assert 0 <= ablation(a, b) <= (0.5 if 2 * n_pos == n_images else 1)
            assert ablation(a, c) <= ablation(a, b) + ablation(b, c) + 1e-9
            if 2 * n_pos == n_images:
                assert ablation(a, 1 - b) == pytest.approx(ablation(a, b))


def test_ablation_takes_booleans_and_lists() -> None:
    assert ablation(np.array([True, False, False]), [0, 1, 0]) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ("110", "1100", "vectors of the same length"),
        ("110", "100", "same number of positives .* got 2 and 1"),
    ],
)
def test_labelings_that_cannot_be_compared(a: str, b: str, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        ablation(bits(a), bits(b))
    with pytest.raises(SettingError, match="vectors of the same length"):
        ablation(bits(a)[None], bits(a)[None])


def test_a_key_is_shared_by_flips_at_1_to_1_only() -> None:
    even, uneven = bits("110010"), bits("110000")
    assert key(even) == key(1 - even)
    assert key(uneven) != key(1 - uneven)
    assert np.array_equal(canonical(even), canonical(1 - even))
    assert canonical(even)[0] == 0
    assert np.array_equal(canonical(uneven), uneven)


def test_keys_tell_labelings_apart_and_ignore_the_dtype() -> None:
    labelings = random_labelings(500, 30, 6, np.random.default_rng(0))
    distinct = {row.tobytes() for row in labelings}
    assert len({key(row) for row in labelings}) == len(distinct)
    assert key(labelings[0]) == key(labelings[0].astype(bool)) == key(labelings[0].astype(float))


def test_a_key_never_changes() -> None:
    # Random splits that a labeling has to itself come from its key, so old runs depend on it.
    assert key(bits("0110100")) == key(bits("0110100").astype(np.int64))
    assert len(key(bits("01"))) == 16
    assert int(key(bits("01")), 16) >= 0


@pytest.mark.parametrize("n_images", [1, 7, 8, 9, 50, 64])
def test_hex_round_trip(n_images: int) -> None:
    for labeling in np.random.default_rng(0).integers(0, 2, (20, n_images), dtype=np.uint8):
        assert np.array_equal(from_hex(to_hex(labeling), n_images), labeling)
    assert to_hex(bits("1111000011")) == "f0c0"


ROWS = np.array([[0, 1, 1, 0], [1, 0, 0, 1], [1, 1, 0, 0]], dtype=np.uint8)
CSV = "0,1,1,0\n1,0,0,1\n1,1,0,0\n"


@pytest.mark.parametrize(
    "text",
    [
        CSV,
        CSV.rstrip("\n"),
        CSV.replace("\n", "\r\n"),
        CSV.replace("\n", "\n\n"),
        CSV.replace("1", "1.0"),
        CSV.replace(",", " , "),
        "cat,dog,eel,fox\n" + CSV,
        '"0","1","1","0"\n1,0,0,1\n1,1,0,0\n',
        "\ufeff" + CSV,  # as spreadsheets write it
        "\ufeffcat,dog,eel,fox\n" + CSV,
        "größe,b,c,d\n" + CSV,
    ],
)
def test_csv_files_in_the_forms_that_programs_write(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode())
    labelings = read_labelings(path)
    assert labelings.dtype == np.uint8
    assert np.array_equal(labelings, ROWS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "at least one labeling"),
        ("a,b,c\n", "at least one labeling"),
        ("0,1\n1,0,1\n", "one entry per image, got rows of 2 and of 3 entries"),
        ("0,1\n1,x\n", r"labeling 2 of .*labels\.csv' must hold 0 and 1 only, got 'x'"),
        ("0,1\n1,\n", r"labeling 2 of .* must hold 0 and 1 only, got ''"),
        ("0,1\n1,2\n", r"labels\.csv` must hold 0 and 1 only, got 2"),
        ("0,1\n1,nan\n", r"labels\.csv` must hold 0 and 1 only, got nan"),
        ("0,1\n1,0.5\n", "must hold 0 and 1 only, got 0.5"),
        ("0,-1\n", "must hold 0 and 1 only, got -1"),
        # Not a heading but a labeling with a hole, which must not be left out silently.
        ("0,,1,0\n1,0,0,1\n", "must hold 0 and 1 only, got ''"),
        ("0,1,x,0\n1,0,0,1\n", "must hold 0 and 1 only, got 'x'"),
        ("0;1;0\n", "must hold 0 and 1 only, got '0;1;0'|comma"),
        ("0" * 200_000 + "\n", "labels.csv"),
    ],
)
def test_csv_files_that_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(SettingError, match=words):
        read_labelings(path)


def test_npz_files(tmp_path: Path) -> None:
    path = tmp_path / "tasks.npz"
    for dtype in (np.uint8, bool, np.float32, np.int64):
        np.savez(path, labelings=ROWS.astype(dtype), hashes=np.array(["a", "b"]))
        assert np.array_equal(read_labelings(path), ROWS)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"labels": ROWS}, r"must hold an array `labelings`, got \['labels'\]"),
        ({"labelings": ROWS * 3}, "must hold 0 and 1 only, got 3"),
        ({"labelings": ROWS[None]}, "must be an array"),
        ({"labelings": np.array([{}, ROWS], dtype=object)}, "plain arrays"),
    ],
)
def test_npz_files_that_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], words: str
) -> None:
    path = tmp_path / "tasks.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=words):
        read_labelings(path)


class Dangerous:
    """Unpickling it would leave a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "tasks.npz"
    np.savez(path, labelings=np.array([Dangerous(tmp_path / "mark")], dtype=object))
    with pytest.raises(SettingError, match="plain arrays"):
        read_labelings(path)
    assert not (tmp_path / "mark").exists()


def compressed() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, labelings=np.random.default_rng(0).integers(0, 2, (9, 99)))
    return buffer.getvalue()


def array_file() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, ROWS)
    return buffer.getvalue()


def strange_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("labelings.npy", b"not an array")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"words", compressed()[:-30], compressed()[:100], array_file(), strange_zip()],
    ids=["empty", "words", "no end", "torn", "npy", "strange member"],
)
def test_damaged_npz_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tasks.npz"
    path.write_bytes(content)
    with pytest.raises(SettingError, match=r"tasks\.npz"):
        read_labelings(path)


def test_an_npz_with_any_byte_damaged_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.npz"
    good = compressed()
    for position in range(0, len(good), 3):
        damaged = bytearray(good)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            read_arrays(path)
        except SettingError as error:
            assert "tasks.npz" in str(error)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.csv", "must exist, got .*none.csv"),
        ("labels.txt", "must be a .csv or an .npz, got .*labels.txt"),
        ("folder.csv", "got the folder .*folder.csv.*tasks.npz"),
    ],
)
def test_other_files(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "labels.txt").write_text(CSV)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(SettingError, match=words):
        read_labelings(tmp_path / name)


def test_checked_labelings_are_a_matrix_of_bytes() -> None:
    assert check_labelings([0, 1, 1]).shape == (1, 3)
    for given in (ROWS, ROWS.astype(bool), ROWS.astype(float), ROWS.tolist()):
        checked = check_labelings(given, 4)
        assert checked.dtype == np.uint8
        assert np.array_equal(checked, ROWS)


@pytest.mark.parametrize(
    ("labelings", "words"),
    [
        (ROWS[:, :3], "`mine` must have one entry per image, 4 here, got 3"),
        (ROWS[:0], r"`mine` must be an array .* got shape \(0, 4\)"),
        (None, "`mine` must be an array"),
        (ROWS + 1, "`mine` must hold 0 and 1 only, got 2"),
        (ROWS.astype(complex), "`mine` must hold 0 and 1 only"),
        (ROWS.astype(object), "`mine` must hold 0 and 1 only, got (?!None)"),
        ([[0, 1, 0, 1], [0]], "`mine` must"),
    ],
)
def test_labelings_that_are_refused(labelings: Any, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        check_labelings(labelings, 4, name="mine")


@pytest.mark.parametrize("n_pos", [2, 5])
def test_all_ablations_at_once_are_those_of_each_pair(n_pos: int) -> None:
    labelings = random_labelings(6, 10, n_pos, np.random.default_rng(0))
    labelings[5] = 1 - labelings[0] if n_pos == 5 else labelings[0]
    expected = [[ablation(a, b) for b in labelings] for a in labelings]
    assert ablations(labelings) == pytest.approx(np.array(expected))


def test_ablations_need_the_same_number_of_positives() -> None:
    with pytest.raises(SettingError, match="same number of positives to be compared, got from 1"):
        ablations(np.array([[1, 0, 0], [1, 1, 0]]))


def test_evenly() -> None:
    assert evenly(range(5), 5) == evenly(range(5), 9) == [0, 1, 2, 3, 4]
    assert evenly(range(101), 3) == [0, 50, 100]
    assert evenly([], 3) == []
