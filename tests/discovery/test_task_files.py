"""Files of tasks in every format: what is written comes back, and nothing else is let in."""

import builtins
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from taskdisc import Tasks, load_tasks
from taskdisc.discovery.formats import FORMATS, Content, format_of
from taskdisc.discovery.manifest import make_manifest
from taskdisc.discovery.tasks import write_tasks
from taskdisc.errors import RunFolderError, SettingError, TaskdiscError
from taskdisc.files import write_npz
from taskdisc.images import ImageSet
from taskdisc.labelings import key, read_labelings

ENDINGS = [row.ending for row in FORMATS.values()]
NAMES = ["plain", 'größe, "<&>" # 1', "two\r\nlines\u2028"]


def made(images: ImageSet, missing: bool = True, n_tasks: int = 3, seed: int = 0) -> Tasks:
    """Tasks with odd names, unknown evidence and, if wanted, missing labels."""
    rng = np.random.default_rng(seed)
    labelings = rng.integers(-1 if missing else 0, 2, (n_tasks, len(images)))
    return Tasks(
        labelings=labelings.astype(np.int8 if missing else np.uint8),
        indices=images.indices,
        hashes=np.array(images.hashes()),
        taskness=rng.random(n_tasks),
        sem=np.full(n_tasks, 0.1),
        p_adjusted=np.array([np.nan, 1 / 3, 0.5])[:n_tasks],
        names=np.array(NAMES[:n_tasks], dtype=np.str_),
        runs=np.array(["a", "", "b"][:n_tasks], dtype=np.str_),
        seeds=np.array([3, -1, 0][:n_tasks]),
        agreement=np.array([0.9, np.nan, 0.7])[:n_tasks],
    )


def write(path: Path, tasks: Tasks, **changes: Any) -> Path:
    write_tasks(path, tasks, made_by="a test", images={"source": "digits"}, **changes)
    return path


def assert_same(a: Tasks, b: Tasks, but: tuple[str, ...] = ("manifest",)) -> None:
    for name in set(Tasks.__dataclass_fields__) - set(but):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert a.labelings.dtype == b.labelings.dtype


@pytest.fixture
def images(digits: ImageSet) -> ImageSet:
    return digits.take(np.arange(5, 25))


@pytest.mark.parametrize(
    ("n_tasks", "missing"), [(0, False), (1, False), (1, True), (3, False), (3, True)]
)
def test_every_format_gives_back_what_was_written(
    tmp_path: Path, images: ImageSet, n_tasks: int, missing: bool
) -> None:
    tasks = made(images, missing, n_tasks)
    facts = [{"is_task": True}] * n_tasks
    manifests = []
    for ending in ENDINGS:
        path = write(tmp_path / f"tasks{ending}", tasks, facts=facts, runs=[{"name": "a"}])
        for found in (load_tasks(path), load_tasks(path, images), load_tasks(str(path))):
            assert_same(found, tasks)
        manifests.append(load_tasks(path).manifest)
        assert sorted(tmp_path.iterdir()) == [path]  # nothing beside it
        before = path.read_bytes()
        write(path, tasks, facts=facts, runs=[{"name": "a"}])
        assert path.suffix == ".npz" or path.read_bytes() == before  # a .zip has its time
        path.unlink()
    assert all(manifest == manifests[0] for manifest in manifests)
    assert manifests[0]["images"]["content"] == images.content_hash()


def test_labels_are_missing_in_the_way_of_each_format(tmp_path: Path, images: ImageSet) -> None:
    tasks = replace(made(images.take([0, 1, 2]), n_tasks=1), keys=None)
    tasks.labelings[0] = [1, -1, 0]
    paths = {ending: write(tmp_path / f"t{ending}", tasks) for ending in ENDINGS}
    with np.load(paths[".npz"]) as arrays:
        assert arrays["labelings"].tolist() == [[1, -1, 0]]
        assert not any(array.dtype.hasobject for array in arrays.values())
    lines = paths[".csv"].read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if not line.startswith("#")]
    assert [line.rsplit(",", 1)[1] for line in table] == ["plain", "1", "", "0"]
    assert table[1].startswith(f"{images.indices[0]},{images.hashes()[0]},")
    assert parquet.read_table(paths[".parquet"])["plain"].to_pylist() == [1, None, 0]
    assert torch.load(paths[".pt"], weights_only=True)["labelings"].tolist() == [[1, -1, 0]]


def test_a_file_without_missing_labels_is_read_by_score(tmp_path: Path, images: ImageSet) -> None:
    tasks = made(images, missing=False)
    assert np.array_equal(read_labelings(write(tmp_path / "t.npz", tasks)), tasks.labelings)
    with pytest.raises(SettingError, match=r"a label for every image, got \d+ missing ones \(-1\)"):
        read_labelings(write(tmp_path / "some.npz", made(images)))
    with pytest.raises(SettingError, match=r"of an image per row, as export writes"):
        read_labelings(write(tmp_path / "t.csv", tasks))


def test_what_is_left_out_is_unknown(images: ImageSet) -> None:
    full = made(images, missing=False)
    bare = Tasks(*(getattr(full, name) for name in list(Tasks.__dataclass_fields__)[:7]))
    assert bare.keys.tolist() == [key(labeling) for labeling in full.labelings]
    assert bare.seeds.tolist() == [-1, -1, -1]
    assert bare.runs.tolist() == ["", "", ""]
    assert np.isnan(bare.agreement).all()


# Which images.


def test_tasks_follow_their_images(tmp_path: Path, images: ImageSet, digits: ImageSet) -> None:
    tasks = made(images)
    order = np.random.default_rng(1).permutation(len(images))
    shuffled = images.take(order)
    path = write(tmp_path / "tasks.csv", tasks)
    assert np.array_equal(load_tasks(path, shuffled).labelings, tasks.labelings[:, order])

    found = tasks.on(digits)  # 20 of its 50 images have labels
    assert found.labelings.shape == (3, 50)
    assert found.labelings.dtype == np.int8
    assert np.array_equal(found.labelings[:, 5:25], tasks.labelings)
    assert (np.delete(found.labelings, np.arange(5, 25), axis=1) == -1).all()
    assert found.hashes.tolist() == digits.hashes()
    with pytest.raises(SettingError, match=r"must be the 20 .* got 50, those and others.*\.on\("):
        load_tasks(path, digits)


def test_positions_in_the_source_do_not_matter_but_for_equal_images(images: ImageSet) -> None:
    twins = images.take([0, 1, 0, 2])
    indices = np.array([10, 11, 12, 13])
    twins = ImageSet("array", twins.images, indices=indices)
    labels = np.array([[1, 0, 0, 1]], dtype=np.uint8)
    tasks = replace(made(twins, False, 1), labelings=labels)
    turned = twins.take([3, 2, 1, 0])
    assert tasks.on(turned).labelings.tolist() == [[1, 0, 0, 1]]
    elsewhere = ImageSet("array", twins.images, indices=np.arange(4))
    assert tasks.on(elsewhere).labelings.tolist() == labels.tolist()
    more = ImageSet("array", images.take([0, 0, 0, 1, 2]).images, indices=np.arange(8, 13))
    assert tasks.on(more).labelings.tolist() == [[0, -1, 1, 0, 1]]  # index 10 is told
    with pytest.raises(SettingError, match="got 1 of them not among"):
        tasks.on(images.take([0, 1, 2]))


def with_other_pixels(images: ImageSet, *positions: int) -> ImageSet:
    """Another version of an image set: one pixel of some of its images is another."""
    pixels = images.images.copy()
    pixels[list(positions), 3, 3] ^= 1
    return replace(images, images=pixels)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.take(np.arange(25, 50)), "got 20 of them not among the 25"),
        (lambda d: d.take(np.arange(24)), "got 1 of them not among the 24"),
        (lambda d: d.resized(24), r"got 20 .*\(that of this index has other pixels"),
        (lambda d: replace(d, images=255 - d.images), "other pixels: another version"),
        (lambda d: with_other_pixels(d, 6, 20), "got 2 of them .* other pixels: another version"),
    ],
)
@pytest.mark.parametrize("ending", ENDINGS)
def test_other_images_are_refused(
    tmp_path: Path,
    images: ImageSet,
    digits: ImageSet,
    ending: str,
    change: Callable[[ImageSet], ImageSet],
    words: str,
) -> None:
    path = write(tmp_path / f"tasks{ending}", made(images))
    with pytest.raises(SettingError, match=words) as raised:
        load_tasks(path, change(digits))
    assert "\n" not in str(raised.value)


# Bad files.


class Evil:
    """Calls a function where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return builtins.exec, ("import pathlib; pathlib.Path('evil').touch()",)


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_ever_unpickled(
    tmp_path: Path, images: ImageSet, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"tasks{ending}"
    objects = [
        lambda: path.write_bytes(pickle.dumps(Evil())),
        lambda: torch.save({"manifest": Evil()}, path),
    ]
    if ending == ".npz":
        objects.append(lambda: np.savez(path, labelings=np.array([Evil()], dtype=object)))
    for save in objects:
        save()
        with pytest.raises(TaskdiscError, match=f"tasks{ending}") as raised:
            load_tasks(path)
        assert "\n" not in str(raised.value)
        assert "weights_only" not in str(raised.value)
        assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_truncated_file_is_refused(tmp_path: Path, images: ImageSet, ending: str) -> None:
    path = write(tmp_path / f"tasks{ending}", made(images))
    whole = path.read_bytes()
    for share in (0, 0.01, 0.2, 0.4, 0.6, 0.8, 0.95, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(RunFolderError, match=f"tasks{ending}") as raised:
            load_tasks(path)
        assert "\n" not in str(raised.value)
    if ending == ".csv":  # by a whole line, a cell, and the rest of a cell
        lines = whole.splitlines(keepends=True)
        for cut in (b"".join(lines[:-1]), whole.rstrip().rsplit(b",", 1)[0], whole + lines[-1]):
            path.write_bytes(cut)
            with pytest.raises(RunFolderError, match=r"tasks\.csv"):
                load_tasks(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_files_of_other_formats_are_refused(tmp_path: Path, images: ImageSet, ending: str) -> None:
    path = tmp_path / f"tasks{ending}"
    for other in ENDINGS:
        if other != ending:
            path.write_bytes(write(tmp_path / f"other{other}", made(images)).read_bytes())
            with pytest.raises(TaskdiscError, match=f"tasks{ending}"):
                load_tasks(path)
    path.write_text("index,hash,a\n1,ab,0\n")
    with pytest.raises(TaskdiscError, match=f"tasks{ending}"):
        load_tasks(path)


def content_of_file(images: ImageSet) -> Content:
    tasks = made(images)
    arrays = (tasks.labelings, tasks.indices, tasks.hashes)
    rows = [
        {"name": name, "taskness": 0.5, "sem": None, "p_adjusted": 0.1} for name in ("a", "b", "c")
    ]
    manifest = make_manifest(*arrays, rows, made_by="a test", images={}, runs=[])
    return Content(manifest, *arrays)


def _tasks(content: Content, **changes: Any) -> None:
    content.manifest["tasks"][1].update(changes)


def _cell(content: Content, value: int) -> None:
    content.labelings[1, 2] = value


WRONG: list[tuple[Callable[[Content], Any], str]] = [
    (lambda c: c.manifest.update(schema=2), "its schema is 2, and .* reads 1"),
    (lambda c: c.manifest.update(schema=0), "its schema is 0"),
    (lambda c: c.manifest.update(schema=True), "no manifest with a schema"),
    (lambda c: c.manifest.update(images=[]), "of which images"),
    (lambda c: c.manifest["images"].update(n=21), "holds 20 images .* says 21"),
    (lambda c: c.manifest["images"].update(content="ab"), "that of other images"),
    (lambda c: c.manifest.update(digest="ab"), "labels were changed"),
    (lambda c: _tasks(c, name="a"), "one name"),
    (lambda c: _tasks(c, seed="3"), "`seed` of a task in its manifest is '3'"),
    (lambda c: _cell(c, 1 - abs(c.labelings[1, 2])), "labels were changed"),
    (lambda c: c.labelings.__setitem__(0, -1), "labels were changed"),
    (lambda c: c.indices.__setitem__(0, 77), "labels were changed"),
    (lambda c: c.hashes.__setitem__(slice(2), c.hashes[:2][::-1].copy()), "other images"),
]
"""What is done to a file, and the words of its refusal."""


@pytest.mark.parametrize("name", list(FORMATS))
@pytest.mark.parametrize(("change", "words"), WRONG)
def test_a_manifest_that_does_not_fit_is_refused(
    tmp_path: Path, images: ImageSet, name: str, change: Callable[[Content], Any], words: str
) -> None:
    content = content_of_file(images)
    change(content)
    path = tmp_path / f"tasks{FORMATS[name].ending}"
    FORMATS[name].write(path, content)
    with pytest.raises(RunFolderError, match=words) as raised:
        load_tasks(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [2, -2, 127])
@pytest.mark.parametrize("name", ["npz", "parquet", "torch"])
def test_other_labels_are_refused(tmp_path: Path, images: ImageSet, name: str, value: int) -> None:
    content = content_of_file(images)
    _cell(content, value)
    path = tmp_path / f"tasks{FORMATS[name].ending}"
    FORMATS[name].write(path, content)
    with pytest.raises(RunFolderError, match=f"labels must be 0, 1 or.* and one is {value}"):
        load_tasks(path)


@pytest.mark.parametrize("cell", ["2", "x", "0.5", "nan", " 1"])
def test_other_labels_of_a_table_are_refused(tmp_path: Path, images: ImageSet, cell: str) -> None:
    path = write(tmp_path / "tasks.csv", made(images, missing=False))
    path.write_bytes(path.read_bytes().rstrip()[:-1] + cell.encode() + b"\n")
    with pytest.raises(RunFolderError, match="labels must be 0, 1 or, where unknown, nothing"):
        load_tasks(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_image_that_stands_twice_is_refused(
    tmp_path: Path, images: ImageSet, ending: str
) -> None:
    twice = made(images.take([0, 1, 0]))
    with pytest.raises(RunFolderError, match="an image twice"):
        write(tmp_path / f"tasks{ending}", twice)


def _npz(path: Path, **changes: Any) -> None:
    with np.load(path) as arrays:
        write_npz(path, {**arrays, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 2, "tasks": None}, "its schema is 2"),  # it may look quite different
        ({"tasks": None}, "must have a list of tasks"),
        ({"tasks": [1]}, "must have a list of tasks"),
        ({"tasks": [{"name": "a", "sem": "much"}]}, "`sem` of a task .* is 'much'"),
        ({"tasks": [{"name": "a", "sem": True}]}, "`sem` of a task"),
        ({"tasks": [{}]}, "`name` of a task .* is None"),
    ],
)
def test_a_manifest_of_another_build_is_refused(
    tmp_path: Path, images: ImageSet, changes: dict[str, Any], words: str
) -> None:
    path = write(tmp_path / "tasks.npz", made(images))
    manifest = {**load_tasks(path).manifest, **changes}
    _npz(path, manifest=np.array(json.dumps(manifest)))
    with pytest.raises(RunFolderError, match=words):
        load_tasks(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labelings": np.zeros((3, 20))}, "must be labels int8 or uint8"),
        ({"labelings": np.zeros(20, np.int8)}, "must be labels int8 or uint8"),
        ({"labelings": np.zeros((2, 20), np.int8)}, "holds 2 tasks .* says 3"),
        ({"labelings": np.zeros((3, 19), np.int8)}, "holds 19 images"),
        ({"indices": np.arange(20.0)}, "indices int64"),
        ({"hashes": np.arange(20)}, "hashes as text"),
        ({"names": np.array(["a", "b", "d"])}, "other tasks than its manifest"),
        ({"taskness": np.zeros(3)}, "other tasks than its manifest"),
        ({"sem": np.zeros(2)}, "other tasks than its manifest"),
        ({"manifest": np.array("{")}, "no manifest with a schema"),
        ({"manifest": np.array("[" * 100_000)}, "no manifest with a schema"),
        ({"manifest": np.arange(3)}, "no manifest with a schema"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, images: ImageSet, changes: dict[str, Any], words: str
) -> None:
    path = write(tmp_path / "tasks.npz", made(images))
    _npz(path, **changes)
    with pytest.raises(RunFolderError, match=words) as raised:
        load_tasks(path)
    assert "\n" not in str(raised.value)


def test_a_table_of_other_columns_is_refused(tmp_path: Path, images: ImageSet) -> None:
    path = write(tmp_path / "tasks.parquet", made(images))
    table = parquet.read_table(path)
    wide = table.set_column(2, "plain", pa.array(np.zeros(20)))
    for wrong in (table.drop_columns(["plain"]), wide, table.replace_schema_metadata({})):
        parquet.write_table(wrong, path)
        with pytest.raises(RunFolderError, match=r"columns are of|no manifest"):
            load_tasks(path)


def test_tensors_of_something_else_are_refused(tmp_path: Path, images: ImageSet) -> None:
    path = write(tmp_path / "tasks.pt", made(images))
    found = torch.load(path, weights_only=True)
    sparse = found["labelings"].to_sparse()
    for wrong in ([1], {"labelings": 3}, {**found, "hashes": "{"}, {**found, "labelings": sparse}):
        torch.save(wrong, path)
        with pytest.raises(RunFolderError, match=r"tasks\.pt"):
            load_tasks(path)


# Formats by name.


@pytest.mark.parametrize(
    ("path", "name", "ending"),
    [
        (None, None, ".npz"),
        (None, "torch", ".pt"),
        (Path("a.parquet"), None, ".parquet"),
        (Path("a.csv"), "csv", ".csv"),
    ],
)
def test_an_ending_or_a_name_is_enough(path: Path | None, name: str | None, ending: str) -> None:
    assert format_of(path, name).ending == ending


@pytest.mark.parametrize(
    ("path", "name", "words"),
    [
        (None, "parket", "did you mean 'parquet'"),
        (Path("a.csv"), "torch", r"ending \.pt for the format torch, got 'a\.csv'"),
        (Path("a.pkl"), None, r"\.npz or \.csv or \.parquet or \.pt, got 'a\.pkl'"),
    ],
)
def test_names_and_endings_that_do_not_agree(path: Path | None, name: str, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        format_of(path, name)


def test_a_missing_package_is_one_sentence(
    tmp_path: Path, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(SettingError, match=r"package pyarrow.*taskdisc\[parquet\]"):
        write(tmp_path / "tasks.parquet", made(images))


def test_a_place_that_cannot_be_written(tmp_path: Path, images: ImageSet) -> None:
    for ending in ENDINGS:
        with pytest.raises(SettingError, match="--out must be a file that can be written"):
            write(tmp_path / "gone" / f"tasks{ending}", made(images))


def test_the_table_begins_with_the_manifest(tmp_path: Path, images: ImageSet) -> None:
    lines = write(tmp_path / "t.csv", made(images)).read_text(encoding="utf-8").split("\n")
    head = [line[2:] for line in lines if line.startswith("# ")]
    assert json.loads("\n".join(head))["schema"] == 1
    assert len(head) == 5  # the images, a line for each task, the end
