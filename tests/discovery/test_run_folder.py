import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskdisc.config import SearchSettings, dump_settings, settings_from
from taskdisc.discovery.folder import folder_settings, new_folder, open_folder
from taskdisc.discovery.run import MOST_PICTURED, _pictured, run_search
from taskdisc.discovery.tasks import load_tasks
from taskdisc.errors import RunFailedError, RunFolderError
from taskdisc.folder import check_images, rounding_note
from taskdisc.images import ImageSet
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.taskness import compiled

SETTINGS = {
    "budget": 12,
    "batch": 5,
    "proposer": "TwoPointsDE",
    "protocol": {"n_steps": 8, "n_splits": 5},
    "tasks": 2,
    "confirm": {"n_splits": 2, "n_random": 60, "random_splits": 1},
    "seed": 3,
}


def search_settings(**changes: Any) -> SearchSettings:
    return settings_from(SearchSettings, {**SETTINGS, **changes})


def twenty(digits: ImageSet) -> ImageSet:
    return digits.take(np.arange(0, 40, 2))


def without_seconds(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: line[name] for name in line if name != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def finished(digits: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    path = tmp_path_factory.mktemp("straight") / "run"
    settings = search_settings()
    folder = new_folder(path, settings, twenty(digits), Pool(1, "cpu"))
    run_search(twenty(digits), settings, Pool(1, "cpu"), folder=folder, progress=Progress())
    folder.close()
    return path


def same_run(path: Path, other: Path) -> bool:
    """Whether two run folders hold the same but for the time that it took."""
    results = [json.loads((folder / "result.json").read_text()) for folder in (path, other)]
    for result in results:
        del result["seconds"]
    arrays = [np.load(folder / "tasks.npz") for folder in (path, other)]
    try:
        return (
            results[0] == results[1]
            and all(
                without_seconds(path / name) == without_seconds(other / name)
                for name in ("trials.jsonl", "confirm.jsonl")
            )
            and sorted(arrays[0].files) == sorted(arrays[1].files)
            and all(np.array_equal(arrays[0][name], arrays[1][name]) for name in arrays[0].files)
        )
    finally:
        for array in arrays:
            array.close()


def test_a_run_leaves_its_files(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        *("config.yaml", "environment.json", "trials.jsonl", "confirm.jsonl", "tasks.npz"),
        "result.json",
    }
    assert not [name for name in names if name.startswith(".")]
    assert len(without_seconds(finished / "trials.jsonl")) == 12
    assert len(without_seconds(finished / "confirm.jsonl")) == 62
    assert folder_settings(finished) == search_settings()
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["seed"] == 3
    assert environment["images"]["n"] == 20


def test_a_run_says_whether_convolutions_are_compiled(
    finished: Path, digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, on_gpu = Pool(1, "cpu"), Pool(1, "cpu")
    on_gpu.on_cpu = False
    monkeypatch.setattr(compiled, "library", object)
    new_folder(tmp_path / "run", search_settings(), twenty(digits), pool).close()
    new_folder(tmp_path / "gpu", search_settings(), twenty(digits), on_gpu).close()
    file = tmp_path / "run" / "environment.json"
    said = json.loads(file.read_text())
    assert said["compiled_convolutions"] is True
    assert json.loads((tmp_path / "gpu" / file.name).read_text())["compiled_convolutions"] is False
    assert rounding_note(tmp_path / "run", pool) == ""
    monkeypatch.setattr(compiled, "library", lambda: None)
    assert rounding_note(tmp_path / "run", pool) == (
        "the run was started with compiled convolutions True, not False, so that what is computed "
        "from here on may be rounded otherwise than it would have been"
    )
    # Of older runs it is not known; another PyTorch is.
    del said["compiled_convolutions"]
    said["packages"]["torch"] = "2.4.0"
    file.write_text(json.dumps(said))
    assert "started with torch '2.4.0', not '" in rounding_note(tmp_path / "run", pool)
    said["packages"] = None
    file.write_text(json.dumps(said))
    assert rounding_note(tmp_path / "run", pool) == ""


def test_a_finished_run_can_be_continued_and_changes_nothing(
    finished: Path, digits: ImageSet
) -> None:
    before = {path.name: path.read_bytes() for path in finished.glob("*.jsonl")}
    folder, settings = open_folder(finished)
    try:
        run_search(twenty(digits), settings, Pool(1, "cpu"), folder=folder, progress=Progress())
    finally:
        folder.close()
    assert {path.name: path.read_bytes() for path in finished.glob("*.jsonl")} == before


STOPPED = """if True:
    import json, sys, time
    from pathlib import Path
    import numpy as np
    from taskdisc import load_images, select
    from taskdisc.config import settings_from, SearchSettings
    from taskdisc.discovery.folder import new_folder
    from taskdisc.discovery.run import run_search
    from taskdisc.pool import Pool
    from taskdisc.progress import Progress

    class Stopping(Progress):
        done = 0

        def advance(self, n, best=None, *, known=False):
            self.done += n
            if self.done == 7:
                print("seven", flush=True)
                time.sleep(600)

    digits = select(load_images("digits", cache=False), n_classes=5, per_class=10, seed=0)
    images = digits.take(np.arange(0, 40, 2))
    settings = settings_from(SearchSettings, json.loads(sys.argv[2]))
    folder = new_folder(Path(sys.argv[1]), settings, images, Pool(1, "cpu"))
    run_search(images, settings, Pool(1, "cpu"), folder=folder, progress=Stopping())
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A run folder and the process that writes to it, which waits after its seventh trial."""
    path = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(path), json.dumps(SETTINGS)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "seven\n"
            yield path, process
        finally:
            process.kill()


def test_a_second_writer_is_refused_and_a_killed_one_leaves_a_run_that_goes_on(
    writer: tuple[Path, subprocess.Popen[str]], finished: Path, digits: ImageSet
) -> None:
    path, process = writer
    before = (path / "trials.jsonl").read_bytes()
    with pytest.raises(RunFolderError, match=rf"one writer, and process {process.pid} on "):
        open_folder(path)
    assert (path / "trials.jsonl").read_bytes() == before

    process.send_signal(signal.SIGKILL)
    process.wait()
    with (path / "trials.jsonl").open("ab") as file:
        file.write(b'{"trial": 8, "labe')  # and it was killed while writing
    folder, settings = open_folder(path)
    try:
        assert 7 <= len(folder.trials.lines) < 12
        check_images(path, twenty(digits))
        run_search(twenty(digits), settings, Pool(1, "cpu"), folder=folder, progress=Progress())
    finally:
        folder.close()
    assert same_run(path, finished)


@pytest.mark.parametrize(("n_trials", "n_evidence"), [(0, 0), (1, 0), (12, 0), (12, 1), (12, 13)])
def test_a_run_goes_on_from_any_stage(
    tmp_path: Path, finished: Path, digits: ImageSet, n_trials: int, n_evidence: int
) -> None:
    path = tmp_path / "run"
    new_folder(path, search_settings(), twenty(digits), Pool(1, "cpu")).close()
    for name, n_lines in (("trials.jsonl", n_trials), ("confirm.jsonl", n_evidence)):
        lines = (finished / name).read_text().splitlines(keepends=True)
        (path / name).write_text("".join(lines[:n_lines]))
    folder, settings = open_folder(path)
    try:
        run_search(twenty(digits), settings, Pool(1, "cpu"), folder=folder, progress=Progress())
    finally:
        folder.close()
    assert same_run(path, finished)


def test_this_process_cannot_open_a_folder_twice(tmp_path: Path, digits: ImageSet) -> None:
    folder = new_folder(tmp_path / "run", search_settings(), digits, Pool(1, "cpu"))
    with pytest.raises(RunFolderError, match="one writer"):
        open_folder(tmp_path / "run")
    folder.close()
    again, settings = open_folder(tmp_path / "run")
    again.close()
    assert settings == search_settings()


def test_folders_are_numbered(
    tmp_path: Path, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "search-digits-002").mkdir()
    names = []
    for _ in range(3):
        folder = new_folder(None, search_settings(), digits, Pool(1, "cpu"))
        names.append(folder.path.as_posix())
        folder.close()
    assert names == [f"runs/search-digits-00{number}" for number in (1, 3, 4)]


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, digits: ImageSet) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("x")
    with pytest.raises(RunFolderError, match=r"`out` must be a new or empty folder.*other files"):
        new_folder(foreign, search_settings(), digits, Pool(1, "cpu"))
    assert os.listdir(foreign) == ["thesis.tex"]

    new_folder(tmp_path / "run", search_settings(), digits, Pool(1, "cpu")).close()
    before = (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(RunFolderError, match=r"`out` must be a new or empty folder.*--resume"):
        new_folder(tmp_path / "run", search_settings(seed=4), digits, Pool(1, "cpu"))
    assert (tmp_path / "run" / "config.yaml").read_text() == before


def test_an_empty_folder_and_a_deep_one_are_taken(tmp_path: Path, digits: ImageSet) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "a" / "b" / "größe 数"):
        new_folder(path, search_settings(), digits, Pool(1, "cpu")).close()
        assert folder_settings(path) == search_settings()


def test_a_file_is_no_folder(tmp_path: Path, digits: ImageSet) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    for out in (path, path / "below"):
        with pytest.raises(RunFolderError, match="`out` must be a folder that can be written"):
            new_folder(out, search_settings(), digits, Pool(1, "cpu"))
    assert path.read_text() == "x"


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"got .*none', which does not exist"):
        open_folder(tmp_path / "none")
    with pytest.raises(RunFolderError, match=r"which has no config\.yaml"):
        open_folder(tmp_path)


@pytest.mark.parametrize("text", ["bugdet: 3\n", "[", "budget: 0\n", "- 1\n"])
def test_a_folder_with_damaged_settings(tmp_path: Path, text: str) -> None:
    (tmp_path / "environment.json").write_text('{"made_by": "search"}')
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(RunFolderError, match="must hold the settings of a search, but"):
        open_folder(tmp_path)


@pytest.mark.parametrize("name", ["trials.jsonl", "confirm.jsonl"])
def test_a_folder_with_a_damaged_journal(tmp_path: Path, name: str) -> None:
    (tmp_path / "environment.json").write_text('{"made_by": "search"}')
    (tmp_path / "config.yaml").write_text(dump_settings(search_settings()))
    (tmp_path / name).write_text('{"trial": 0}\nbroken\n{"trial": 2}\n')
    with pytest.raises(RunFolderError, match=f"line 2 of .*{name}"):
        open_folder(tmp_path)


def test_other_images_are_refused(finished: Path, digits: ImageSet) -> None:
    check_images(finished, twenty(digits))
    with pytest.raises(RunFolderError, match="the images must be those"):
        check_images(finished, twenty(digits).take(np.arange(20)[::-1]))


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"images": 3}'])
def test_a_folder_that_does_not_say_what_its_images_were(
    tmp_path: Path, digits: ImageSet, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "environment.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"intact environment\.json"):
        check_images(tmp_path, digits)


def test_a_disk_that_is_full_at_the_end_keeps_all_trials(
    tmp_path: Path, finished: Path, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    new_folder(path, search_settings(), twenty(digits), Pool(1, "cpu")).close()
    for name in ("trials.jsonl", "confirm.jsonl"):
        (path / name).write_bytes((finished / name).read_bytes())

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    folder, settings = open_folder(path)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full)
            with pytest.raises(RunFailedError, match=r"No space left.*--resume"):
                run_search(
                    *(twenty(digits), settings, Pool(1, "cpu")), folder=folder, progress=Progress()
                )
        assert not (path / "result.json").exists()
        with pytest.raises(RunFolderError, match="finished run"):
            load_tasks(path)
        run_search(twenty(digits), settings, Pool(1, "cpu"), folder=folder, progress=Progress())
    finally:
        folder.close()
    assert same_run(path, finished)


def test_all_images_of_a_small_set_are_pictured(finished: Path) -> None:
    with np.load(finished / "pictures.npz") as pictures:
        assert pictures["positions"].tolist() == list(range(20))


def test_of_a_big_set_every_labeling_has_some_pictures() -> None:
    labelings = np.zeros((10, 50_000), np.uint8)
    for i, labeling in enumerate(labelings):
        labeling[i * 5000 : (i + 1) * 5000] = 1
    shown = _pictured(labelings)
    assert 1000 < len(shown) <= MOST_PICTURED
    assert np.all(np.diff(shown) > 0)
    assert (labelings[:, shown].sum(axis=1) >= 100).all()
    assert ((1 - labelings[:, shown]).sum(axis=1) >= 100).all()
