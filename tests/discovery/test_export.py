import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from taskdisc import Tasks, load_tasks
from taskdisc.cli import app
from taskdisc.config import SearchSettings, dump_settings
from taskdisc.discovery.export import export_tasks
from taskdisc.discovery.result import SearchResult
from taskdisc.discovery.tasks import check_made_for
from taskdisc.discovery.trials import Trial
from taskdisc.errors import RunFolderError, SettingError
from taskdisc.files import write_atomic, write_json, write_npz
from taskdisc.images import ImageSet
from taskdisc.labelings import key, read_labelings
from taskdisc.taskness.confirm import Confirmation

MEANS = [0.5, 0.02, 0.7]  # the second is no task


@pytest.fixture
def images(digits: ImageSet) -> ImageSet:
    return digits.take(np.arange(20))


def finished(
    folder: Path, images: ImageSet, means: list[float] = MEANS, shift: int = 0
) -> SearchResult:
    """What a search leaves that confirmed its candidates at these means."""
    labelings = [np.roll(np.arange(20) < 4, 4 * i + shift).astype(np.uint8) for i in range(3)]
    trials = [Trial(labeling, i / 10) for i, labeling in enumerate(labelings)]
    per_split = np.array(means)[:, None] + np.array([-0.01, 0.01])
    curves = np.zeros((3, 3))
    result = SearchResult(
        SearchSettings(seed=7),
        images,
        trials,
        [0, 1, 2],
        Confirmation(per_split, np.arange(99) / 1000, curves, curves, np.ones(3)),
        {"search": 1.0, "confirm": 2.0},
    )
    folder.mkdir()
    write_json(folder / "environment.json", {"images": {"n": 20, "content": images.content_hash()}})
    write_atomic(folder / "config.yaml", dump_settings(result.settings))
    write_npz(folder / "tasks.npz", result.task_arrays())
    write_json(folder / "result.json", result.to_dict())
    return result


def keep_file(path: Path, result: SearchResult, decisions: list[Any], **changes: Any) -> Path:
    """Decisions on the candidates by their place on the page: (place, name, keep)."""
    rows = [{"key": key(result.labelings[i]), "name": n, "keep": keep} for i, n, keep in decisions]
    content = {"schema": 1, "run": "run", "images": result.images.content_hash(), "tasks": rows}
    write_json(path, {**content, **changes})
    return path


def test_all_tasks_go_out_best_first(tmp_path: Path, images: ImageSet) -> None:
    result = finished(tmp_path / "run", images)
    exported = export_tasks([tmp_path / "run"], tmp_path / "out.npz")
    assert [row.name for row in exported] == ["labeling-1", "labeling-2"]
    tasks, before = load_tasks(tmp_path / "out.npz"), load_tasks(tmp_path / "run")
    for name in set(Tasks.__dataclass_fields__) - {"manifest"}:
        np.testing.assert_array_equal(getattr(tasks, name), getattr(before, name), err_msg=name)
    assert tasks.seeds.tolist() == [7, 7]
    assert tasks.runs.tolist() == ["run", "run"]
    assert np.array_equal(read_labelings(tmp_path / "out.npz"), result.labelings[:2])
    check_made_for(tmp_path / "out.npz", images)


def test_every_labeling_goes_out_where_that_is_asked_for(tmp_path: Path, images: ImageSet) -> None:
    result = finished(tmp_path / "run", images, means=[0.02, 0.01, 0.03])  # no task at all
    with pytest.raises(
        SettingError, match=r"at least one task .* write them all the same by --all"
    ):
        export_tasks([tmp_path / "run"], tmp_path / "out.npz")
    exported = export_tasks([tmp_path / "run"], tmp_path / "out.npz", every=True)
    assert [row.is_task for row in exported] == [False] * 3
    assert np.array_equal(load_tasks(tmp_path / "out.npz").labelings, result.labelings)
    keep = keep_file(tmp_path / "keep.json", result, [(0, "", True)])
    with pytest.raises(SettingError, match="--keep must be left out where --all is given"):
        export_tasks([tmp_path / "run"], tmp_path / "out.npz", keep, every=True)


def test_what_was_kept_goes_out_in_its_order_with_its_names(
    tmp_path: Path, images: ImageSet
) -> None:
    result = finished(tmp_path / "run", images)
    decisions = [(2, " round – größe ", True), (1, "", False), (0, "", True)]
    keep = keep_file(tmp_path / "keep.json", result, decisions)
    exported = export_tasks([tmp_path / "run"], tmp_path / "out.npz", keep)
    assert [row.is_task for row in exported] == [False, True]  # kept by hand
    tasks = load_tasks(tmp_path / "out.npz")
    assert tasks.names.tolist() == ["round – größe", "labeling-1"]
    assert np.array_equal(tasks.labelings, result.labelings[[2, 0]])
    assert tasks.taskness == pytest.approx([0.02, 0.7])


def test_the_manifest_says_where_tasks_come_from(tmp_path: Path, images: ImageSet) -> None:
    result = finished(tmp_path / "run", images)
    keep = keep_file(tmp_path / "keep.json", result, [(1, "", True), (2, "", True)])
    export_tasks([tmp_path / "run"], tmp_path / "out.npz", keep)
    manifest = load_tasks(tmp_path / "out.npz").manifest
    assert manifest["made_by"] == "taskdisc export"
    assert manifest["taskdisc"] == version("taskdisc")
    drawn = {"target": None, "class_a": None, "n_classes": None, "per_class": None}
    assert manifest["images"] == {
        "source": "digits",
        "split": "train",
        "size": None,
        "drawn": {**drawn, "n_images": None, "seed": 0},
        "n": 20,
        "content": images.content_hash(),
    }
    (run,) = manifest["runs"]
    assert (run["name"], run["seed"], run["ratio"]) == ("run", 7, 4)
    assert [task["is_task"] for task in manifest["tasks"]] == [True, False]
    assert [task["n_splits"] for task in manifest["tasks"]] == [2, 2]
    assert [task["key"] for task in manifest["tasks"]] == [
        key(labeling) for labeling in result.labelings[1:]
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "`schema` .* must be 1, got 2"),
        ({"images": "0" * 16}, "`images` .* must be those of the run, .*gallery of 'run'"),
        ({"tasks": 3}, "`tasks` .* must be a list of decisions"),
        ({"tasks": [{"key": "a"}]}, "`tasks` .* must be a list of decisions"),
        ({"tasks": [{"key": "a", "name": "", "keep": 1}]}, "`keep` that is true or false"),
        ({"tasks": [{"key": "a", "name": "", "keep": True}]}, "labeling of the run, got 'a'"),
        ({"tasks": []}, "must keep at least one labeling, got none kept of 0"),
    ],
)
def test_bad_decisions_are_one_sentence(
    tmp_path: Path, images: ImageSet, change: dict[str, Any], words: str
) -> None:
    result = finished(tmp_path / "run", images)
    keep = keep_file(tmp_path / "keep.json", result, [(0, "", True)], **change)
    with pytest.raises(SettingError, match=words) as raised:
        export_tasks([tmp_path / "run"], tmp_path / "out.npz", keep)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize(
    ("decisions", "words"),
    [
        ([(0, "", True), (0, "", False)], "stand there once"),
        ([(0, "round", True), (1, "round", True)], "'round' 2 times"),
        ([(0, "", False)], "got none kept of 1"),
        ([(0, "index", True)], "other than 'index' and 'hash'"),
        ([(0, "half \ud800", True)], "rename it in the gallery"),
    ],
)
def test_decisions_that_contradict_are_refused(
    tmp_path: Path, images: ImageSet, decisions: list[Any], words: str
) -> None:
    result = finished(tmp_path / "run", images)
    keep = keep_file(tmp_path / "keep.json", result, decisions)
    with pytest.raises(SettingError, match=words):
        export_tasks([tmp_path / "run"], tmp_path / "out.npz", keep)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"3"])
def test_what_is_no_keep_file_is_one_sentence(
    tmp_path: Path, images: ImageSet, content: bytes
) -> None:
    finished(tmp_path / "run", images)
    keep = tmp_path / "keep.json"
    with pytest.raises(SettingError, match=r"got .*keep\.json' \(No such file"):
        export_tasks([tmp_path / "run"], tmp_path / "out.npz", keep)
    keep.write_bytes(content)
    with pytest.raises(SettingError, match=r"keep\.json' must .*gallery saves it"):
        export_tasks([tmp_path / "run"], tmp_path / "out.npz", keep)


def test_decisions_of_another_run_are_refused(tmp_path: Path, images: ImageSet) -> None:
    finished(tmp_path / "run", images)
    other = finished(tmp_path / "other", images, shift=1)
    keep = keep_file(tmp_path / "keep.json", other, [(0, "", True)], run="other")
    with pytest.raises(SettingError, match=r"every `key` .*gallery of 'other': export that run"):
        export_tasks([tmp_path / "run"], tmp_path / "out.npz", keep)


def test_several_runs_over_the_same_images(tmp_path: Path, images: ImageSet) -> None:
    first = finished(tmp_path / "a", images)
    again = finished(tmp_path / "b", images, [0.01, 0.6, 0.8])  # the third labeling twice
    exported = export_tasks([tmp_path / "a", tmp_path / "b"], tmp_path / "out.npz")
    assert [row.name for row in exported] == ["a/labeling-1", "a/labeling-2", "b/labeling-2"]
    assert load_tasks(tmp_path / "out.npz").taskness == pytest.approx([0.7, 0.5, 0.6])
    assert key(first.labelings[0]) == key(again.labelings[0])


def test_runs_over_different_images_are_refused(tmp_path: Path, images: ImageSet) -> None:
    finished(tmp_path / "a", images)
    finished(tmp_path / "b", images.take(np.arange(20)[::-1]))
    with pytest.raises(RunFolderError, match=r"over the same images, got others in '.*b'"):
        export_tasks([tmp_path / "a", tmp_path / "b"], tmp_path / "out.npz")


def test_runs_that_cannot_be_exported(tmp_path: Path, images: ImageSet) -> None:
    finished(tmp_path / "run", images, [0.0, 0.01, 0.02])
    out = tmp_path / "out.npz"
    with pytest.raises(SettingError, match="at least one task to be exported, got none"):
        export_tasks([tmp_path / "run"], out)
    with pytest.raises(RunFolderError, match="does not exist"):
        export_tasks([tmp_path / "none"], out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunFolderError, match=r"got '.*empty', which has no config\.yaml"):
        export_tasks([tmp_path / "empty"], out)
    with pytest.raises(SettingError, match=r"ending \.npz or \.csv or .*, got"):
        export_tasks([tmp_path / "run"], tmp_path / "out.txt")
    damaged = json.loads((tmp_path / "run" / "result.json").read_text())
    damaged["tasks"][0]["positives"] = [99]
    write_json(tmp_path / "run" / "result.json", damaged)
    with pytest.raises(RunFolderError, match=r"result\.json' must be"):
        export_tasks([tmp_path / "run"], out)


@pytest.mark.parametrize(
    ("options", "file"),
    [
        ([], "run-tasks.npz"),
        (["--format=torch"], "run-tasks.pt"),
        (["--format=csv", "--out=mine.csv"], "mine.csv"),
        (["--out=mine.parquet"], "mine.parquet"),
    ],
)
def test_the_command_writes_every_format(
    tmp_path: Path,
    images: ImageSet,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    file: str,
) -> None:
    result = finished(tmp_path / "run", images)
    keep_file(tmp_path / "keep.json", result, [(2, "round", True)])
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["export", "run", "--keep=keep.json", *options])
    assert done.exit_code == 0, done.output
    assert f"file: {file}" in done.output
    tasks = load_tasks(file, images)
    assert tasks.names.tolist() == ["round"]
    assert np.array_equal(tasks.labelings, result.labelings[2:])
    assert tasks.taskness == pytest.approx([0.02])


def test_format_and_ending_must_agree(tmp_path: Path, images: ImageSet) -> None:
    finished(tmp_path / "run", images)
    with pytest.raises(SettingError, match=r"ending \.pt for the format torch"):
        export_tasks([tmp_path / "run"], tmp_path / "out.csv", format="torch")
    assert not (tmp_path / "out.csv").exists()


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, images: ImageSet) -> None:
    finished(tmp_path / "run", images)
    with pytest.raises(SettingError, match="--out must be a file that can be written"):
        export_tasks([tmp_path / "run"], tmp_path / "gone" / "out.npz")
