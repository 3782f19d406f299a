"""Every reader against every broken file: a sentence of ours or a right answer, and nothing else.

`bounds.outcome` says what else there could be: another error, a wait, memory beyond a bound, code
that runs. `TASKDISC_FUZZ=N` (see `make fuzz`) tries N examples of Hypothesis for each reader.
"""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounds import EXAMPLES, REFUSED, TRIED, outcome
from canary import pickled
from corpus import ANY, BOMBS, FORMS, ODD, TREES, dumped, loaded, places, replaced, without
from hypothesis import given, settings
from hypothesis import strategies as st
from readers import READERS, Reader

FEW, FEWER = 8, 2
"""Examples of Hypothesis in the normal tests, of fast readers and of slow ones."""


class Place:
    """An intact file of a reader, to be broken again and again."""

    def __init__(self, name: str, folder: Path) -> None:
        self.reader: Reader = READERS[name]
        self.canary = folder / "executed"
        (folder / "at").mkdir()
        self.file = self.reader.write(folder / "at")
        self.content = self.file.read_bytes()

    def read(self) -> Any:
        return outcome(lambda: self.reader.read(self.file), self.canary)

    def tried(self, content: bytes) -> None:
        """Read another content; what is not refused must be a right answer."""
        self.file.write_bytes(content)
        found = self.read()
        assert found is REFUSED or self.reader.right(found), "not a right answer"
        TRIED["refused" if found is REFUSED else "answered"] += 1


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, made: None) -> Place:
    return Place(request.param, tmp_path)


every_reader = pytest.mark.parametrize("place", READERS, indirect=True)


def _some(reader: Reader, table: dict[str, Any]) -> list[str]:
    """What of a table the normal tests try: all by the first reader of a form, and by the others,
    which read by the same means, a part of it each, without what takes long to make."""
    readers = list(READERS.values())
    of_form = [other for other in readers if other.form == reader.form]
    if reader is of_form[0]:
        return list(table)
    quick = [name for name in table if name not in BOMBS]
    step = 10 if reader.slow else 4
    return quick[readers.index(reader) % step :: step]


@every_reader
def test_an_intact_file_is_read_and_every_broken_one_refused_or_read_right(place: Place) -> None:
    found = place.read()
    assert found is not REFUSED and place.reader.right(found)
    table = {**ANY, **FORMS[place.reader.form]}
    for name in table if EXAMPLES else _some(place.reader, table):
        try:
            place.tried(table[name](place.content, place.canary))
        except BaseException as error:
            error.add_note(f"the broken file: {name}")
            raise


_bytes = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from(["flip", "cut", "drop", "put", "repeat"]),
        st.integers(0, 255),
        st.binary(max_size=8),
    ),
    min_size=1,
    max_size=6,
)


def _broken(content: bytes, edits: list[tuple[float, str, int, bytes]]) -> bytes:
    for share, what, number, piece in edits:
        at = int(share * len(content))
        before, after = content[:at], content[at:]
        content = {
            "flip": before + bytes([(after[0] if after else 0) ^ (number or 1)]) + after[1:],
            "cut": before,
            "drop": before + after[number:],
            "put": before + piece + after,
            "repeat": before + after[:number] * 3 + after[number:],
        }[what]
    return content


_values = st.recursive(
    st.sampled_from([value for value in ODD if not isinstance(value, list | dict)])
    | st.none()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def _another(draw: st.DrawFn, content: bytes, form: str) -> bytes:
    """The content with some bytes changed or, of a tree of values, one or two of these."""
    if form not in TREES or draw(st.integers(0, 3)) == 0:
        return _broken(content, draw(_bytes))
    value = loaded(content, form)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(list(places(value))))
        if path and draw(st.booleans()):
            value = without(value, path)
        else:
            value = replaced(value, path, draw(_values))
    return dumped(value, form)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of a file that fails
@every_reader
def test_files_that_hypothesis_breaks_are_refused_or_read_right(place: Place) -> None:
    n = EXAMPLES // (20 if place.reader.slow else 1) or (FEWER if place.reader.slow else FEW)

    @settings(settings.get_profile("hostile"), max_examples=n)
    @given(_another(place.content, place.reader.form))
    def tried(content: bytes) -> None:
        place.tried(content)

    tried()


def test_the_canary_sings(tmp_path: Path) -> None:
    """The control: what must never happen does happen where something is unpickled."""
    import pickle

    with pytest.raises(SystemExit, match="executed"):
        pickle.loads(pickled(tmp_path / "executed"))
    assert (tmp_path / "executed").exists()


def test_the_bounds_bind(tmp_path: Path) -> None:
    """The control of memory: an array that is too large is told, also behind a sentence."""
    from taskdisc.errors import ImageSetError

    def takes_much() -> None:
        try:
            np.ones(2**31, dtype=np.uint8)
        except MemoryError as error:
            raise ImageSetError("the image must be small.") from error

    with pytest.raises(AssertionError, match="more than"):
        outcome(takes_much, tmp_path / "none")
    with pytest.raises(KeyError):
        outcome(lambda: {}["x"], tmp_path / "none")


@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"])
def test_batches_of_cifar_that_are_not_as_published_are_never_unpickled(
    name: str, tmp_path: Path
) -> None:
    """Published are pickles: none is opened whose checksum is not that of its publisher."""
    from taskdisc.images import load_images

    for source, folder, names in (
        ("cifar10", "cifar-10-batches-py", [name]),
        ("cifar100", "cifar-100-python", ["train", "test", "meta"]),
    ):
        (tmp_path / folder).mkdir()
        for file in names:
            (tmp_path / folder / file).write_bytes(pickled(tmp_path / "executed"))
        for split in ("train", "test"):
            read = outcome(
                lambda source=source, split=split: load_images(  # type: ignore[misc]
                    source, root=tmp_path, split=split, cache=False
                ),
                tmp_path / "executed",
            )
            assert read is REFUSED


def test_nothing_is_written_outside_of_where_it_belongs(tmp_path: Path) -> None:
    """A journal that is a link, in a folder of somebody else's, is neither cut nor appended to."""
    from taskdisc.errors import RunFolderError
    from taskdisc.journal import Journal

    (tmp_path / "mine").write_text("no line of a journal, and no end of a line")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trials.jsonl").symlink_to(tmp_path / "mine")
    with pytest.raises(RunFolderError, match="got a link"):
        Journal(tmp_path / "run" / "trials.jsonl")
    assert (tmp_path / "mine").read_text() == "no line of a journal, and no end of a line"


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    import os

    from run_files import write_finished

    from taskdisc.listing import list_runs
    from taskdisc.report.page import write_report

    folder = write_finished(tmp_path / "run")
    for name in ("result.json", "environment.json"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        assert outcome(lambda: write_report(folder), tmp_path / "none") is REFUSED
        (row,) = list_runs(tmp_path)
        assert "damaged" in row["state"] or row["state"] == "unfinished"


def test_folders_within_folders_without_end(tmp_path: Path) -> None:
    import os

    from taskdisc.images import load_images

    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(1200):
            os.mkdir("a")
            os.chdir("a")
        os.chdir(here)
        read = outcome(lambda: load_images("folder", root=tmp_path / "a"), tmp_path / "none")
        assert read is REFUSED
    finally:
        os.chdir(here)
        # By a program of the system: that of Python, with which pytest cleans up, calls itself for
        # every level, and fails.
        subprocess.run(["rm", "-rf", str(tmp_path / "a")], check=True)


def test_names_that_are_no_text_and_files_without_end(tmp_path: Path) -> None:
    import os

    from image_files import class_files, write_tree

    from taskdisc.images import load_images

    def folder(name: str) -> Path:
        return write_tree(tmp_path / name, class_files({"cat": 1, "dog": 1}))

    os.mkdir(os.fsencode(folder("bytes")) + b"/\xff\xfe")
    os.mkdir(folder("escape") / "\x1b[2J")
    with (folder("large") / "cat" / "x.png").open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    (folder("device") / "cat" / "x.png").symlink_to("/dev/zero")
    (folder("around") / "cat" / "again").symlink_to(tmp_path / "around")
    read = {
        name: outcome(
            lambda name=name: load_images("folder", root=tmp_path / name, cache=False),  # type: ignore[misc]
            tmp_path / "none",
        )
        for name in ("bytes", "escape", "large", "device", "around")
    }
    assert [name for name in read if read[name] is REFUSED] == ["bytes", "escape", "large"]
    assert len(read["device"]) == len(read["around"]) == 2
