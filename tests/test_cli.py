"""The commands as a user meets them: real processes, real exit codes, real kills."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from taskdisc import load_tasks
from taskdisc.labelings import key

TASKDISC = [sys.executable, "-m", "taskdisc"]
SMALL = [
    # Slow enough to be interrupted.
    "--set=proposer=TwoPointsDE",
    "--set=scorer=trained",
    "--set=budget=24",
    "--set=batch=8",
    "--set=tasks=2",
    "--set=protocol.n_splits=5",
    "--set=protocol.n_steps=12",
    "--set=confirm.n_splits=5",
    "--set=confirm.n_random=40",
    "--set=confirm.random_splits=2",
]


def taskdisc(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TASKDISC, *arguments], cwd=cwd, capture_output=True, text=True)


def found(folder: Path) -> tuple[list[Any], dict[str, Any], dict[str, np.ndarray]]:
    """What must not depend on how a run came about: all but wall times."""
    lines = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    trials = [(line["trial"], line["labeling"], line["taskness"]) for line in lines]
    result = json.loads((folder / "result.json").read_text())
    del result["seconds"]
    with np.load(folder / "tasks.npz") as arrays:
        return trials, result, {name: arrays[name] for name in arrays.files}


def assert_same(a: Path, b: Path) -> None:
    trials_a, result_a, tasks_a = found(a)
    trials_b, result_b, tasks_b = found(b)
    assert trials_a == trials_b
    assert result_a == result_b
    assert tasks_a.keys() == tasks_b.keys()
    for name, values in tasks_a.items():
        np.testing.assert_array_equal(values, tasks_b[name], err_msg=name)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run by one worker."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    done = taskdisc("search", *SMALL, "--jobs=1", "--json", f"--out={folder}", cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((folder / "result.json").read_text())
    return folder


def test_a_run_leaves_all_its_files(straight: Path) -> None:
    names = {path.name for path in straight.iterdir()}
    assert names == {
        "config.yaml",
        "environment.json",
        "lock",
        "trials.jsonl",
        "confirm.jsonl",
        "tasks.npz",
        "pictures.npz",
        "result.json",
        "report.html",
        "gallery.html",
    }
    _, result, _ = found(straight)
    assert result["trials"] == 24
    means = [task["confirmed"]["mean"] for task in result["tasks"]]
    assert len(means) == 2
    assert means == sorted(means, reverse=True)
    assert all(len(task["positives"]) == 10 for task in result["tasks"])


def test_two_workers_find_the_same(straight: Path, tmp_path: Path) -> None:
    done = taskdisc("search", *SMALL, "--jobs=2", "--out=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same(straight, tmp_path / "run")


def test_a_run_that_goes_on_with_another_pytorch_says_so(straight: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    file = tmp_path / "run" / "environment.json"
    said = json.loads(file.read_text())
    said["packages"]["torch"] = "2.4.0"
    file.write_text(json.dumps(said))
    done = taskdisc("search", "--resume=run", "--jobs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (note,) = [line for line in done.stdout.splitlines() if line.startswith("note: ")]
    assert note.startswith("note: the run was started with torch '2.4.0', not '")
    assert_same(straight, tmp_path / "run")


# Before the first trial, within a batch, after several, and while confirming.
@pytest.mark.parametrize(
    ("journal", "n_lines"),
    [("trials.jsonl", 0), ("trials.jsonl", 3), ("trials.jsonl", 13), ("confirm.jsonl", 4)],
    ids=["at-start", "in-first-batch", "in-search", "in-confirm"],
)
def test_resume_after_kill_equals_straight_run(
    straight: Path, tmp_path: Path, journal: str, n_lines: int
) -> None:
    folder = tmp_path / "run"
    command = [*TASKDISC, "search", *SMALL, "--jobs=1", "--out=run"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        wait_for_lines(process, folder / journal, n_lines)
        process.send_signal(signal.SIGKILL)
    assert not (folder / "result.json").exists()
    done = taskdisc("search", "--resume=run", "--jobs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same(straight, folder)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_with_what_was_found(
    straight: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    folder = tmp_path / "run"
    command = [*TASKDISC, "search", *SMALL, "--jobs=2", "--out=run"]
    # A session of its own, so that the signal reaches the workers too, as in a terminal or a job.
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        wait_for_lines(process, folder / "trials.jsonl", 5)
        os.killpg(process.pid, number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in stderr
    assert stderr.count("go on with: taskdisc search --resume") == 1
    assert (folder / "report.html").exists()
    done = taskdisc("search", "--resume=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same(straight, folder)


def wait_for_lines(process: subprocess.Popen[Any], journal: Path, n_lines: int) -> None:
    """Until the journal has that many lines; for 0, until the run folder is a run."""
    marker = journal if n_lines else journal.with_name("config.yaml")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if marker.exists() and marker.read_bytes().count(b"\n") >= max(n_lines, 1):
            return
        assert process.poll() is None, "the run ended before it could be interrupted"
        time.sleep(0.002)
    pytest.fail(f"no {n_lines} lines in {journal} after 120 s")


def test_resuming_a_finished_run_changes_nothing(straight: Path) -> None:
    before = found(straight)
    done = taskdisc("search", f"--resume={straight}", cwd=straight.parent)
    assert done.returncode == 0, done.stderr
    assert repr(found(straight)) == repr(before)
    assert "class match" in done.stdout
    assert "classes that the tasks recovered (digit): " in done.stdout


def test_score_report_and_runs_read_a_run(straight: Path, tmp_path: Path) -> None:
    config = straight / "config.yaml"
    labels = tmp_path / "labels.csv"
    positives = found(straight)[1]["tasks"][0]["positives"]
    labels.write_text(",".join(str(int(i in positives)) for i in range(50)) + "\n")
    scored = taskdisc("score", str(labels), str(config), "--json", "--jobs=1", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    # The same protocol and seed as the search, so the same figure as the search saw.
    seen = found(straight)[1]["tasks"][0]["seen"]
    assert json.loads(scored.stdout)["labelings"][0]["taskness"] == pytest.approx(seen, abs=1e-4)

    pairs = ["--agreement", "--set=agreement.n_pairs=2", "--set=agreement.n_random=2"]
    agreed = taskdisc("score", str(labels), str(config), *pairs, cwd=tmp_path)
    assert agreed.returncode == 0, agreed.stderr
    assert "2 random labelings: agreement" in agreed.stdout
    assert "held-out images: 500" in agreed.stdout
    few = [*pairs, "--set=agreement.n_held_out=2000", "--json"]
    agreed = taskdisc("score", str(labels), str(config), *few, cwd=tmp_path)
    scores = json.loads(agreed.stdout)
    assert 0 <= scores["labelings"][0]["agreement"] <= 1
    assert len(scores["random"]) == 2
    assert 800 < scores["n_held_out"] < 900  # all others of five digits

    (straight / "report.html").unlink()
    assert taskdisc("report", str(straight), cwd=tmp_path).returncode == 0
    assert (straight / "report.html").stat().st_size > 10_000

    rows = json.loads(taskdisc("runs", str(straight.parent), "--json", cwd=tmp_path).stdout)
    assert [(row["run"], row["state"], row["done"]) for row in rows] == [
        ("run", "finished", "24/24")
    ]


def test_a_study_by_the_command(tmp_path: Path) -> None:
    small = ("study", "score-reliability", "--set", "n_random=3", "--set", "n_components=1")
    small += ("--set", "n_swapped=0", "--set", "trainings=[1]", "--out", "out")
    listed = taskdisc("study", cwd=tmp_path)
    assert listed.returncode == 0 and "how much of a score is noise" in listed.stdout
    shown = taskdisc(*small, "--show-settings", cwd=tmp_path)
    assert yaml.safe_load(shown.stdout)["n_random"] == 3
    assert not (tmp_path / "out").exists()
    done = taskdisc(*small, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["study"] == "score-reliability"
    assert printed["reading"] + "\n" == (tmp_path / "out" / "reading.txt").read_text()
    assert [row["trainings"] for row in printed["table"]] == [1, 1]
    again = taskdisc("study", "--resume", "out", cwd=tmp_path)
    assert printed["reading"] in again.stdout and "page: out/report.html" in again.stdout
    assert taskdisc("report", "out", cwd=tmp_path).stdout == "out/report.html\n"
    assert "study score-reliability" in taskdisc("runs", ".", cwd=tmp_path).stdout


def test_export_writes_what_was_kept(straight: Path, tmp_path: Path) -> None:
    result = found(straight)[1]
    labeling = np.zeros(50, np.uint8)
    labeling[result["tasks"][1]["positives"]] = 1
    content = json.loads((straight / "environment.json").read_text())["images"]["content"]
    keep = {
        "schema": 1,
        "run": "run",
        "images": content,
        "tasks": [{"key": key(labeling), "name": "round", "keep": True}],
    }
    (tmp_path / "keep.json").write_text(json.dumps(keep))
    done = taskdisc("export", str(straight), "--keep=keep.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "file: run-tasks.npz" in done.stdout
    tasks = load_tasks(tmp_path / "run-tasks.npz")
    assert tasks.names.tolist() == ["round"]
    assert np.array_equal(tasks.labelings, labeling[None])


def test_options_of_a_search_decide_what_is_found(tmp_path: Path) -> None:
    common = ["--set=budget=60", "--set=protocol.n_steps=5", "--set=protocol.n_splits=5"]
    common += ["--set=confirm={n_splits: 2, n_random: 60, random_splits: 1}", "--jobs=1"]
    first = taskdisc("search", *common, "--out=first", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    positives = [task["positives"] for task in found(tmp_path / "first")[1]["tasks"]]
    rows = [",".join(str(int(i in row)) for i in range(50)) for row in positives]
    (tmp_path / "found.csv").write_text("\n".join(rows) + "\n")

    options = ["--tasks=2", "--min-ablation=0.7", "--features=random"]
    options += ["--known=classes", "--known=found.csv", "--set=tasks=1"]
    second = taskdisc("search", *common, *options, "--out=second", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    result = found(tmp_path / "second")[1]
    assert (result["closed_form"]["kernel"], result["closed_form"]["features"]) == (
        "linear",
        "random",
    )
    known = [set(row) for row in positives] + [set(range(i, i + 10)) for i in range(0, 50, 10)]
    tasks = [set(task["positives"]) for task in result["tasks"]]
    assert len(tasks) == 2  # an option goes before --set
    assert len(tasks[0] & tasks[1]) <= 3
    assert all(len(task & other) <= 3 for task in tasks for other in known)
    again = taskdisc("search", "--resume=second", "--jobs=1", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert found(tmp_path / "second")[1] == result


def test_images_counts_and_pictures(tmp_path: Path) -> None:
    done = taskdisc("images", "digits", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["count"] == 1797
    with Image.open(tmp_path / facts["contact_sheet"]) as sheet:
        assert sheet.width > 100


def bad_folder(path: Path) -> None:
    (path / "empty").mkdir()
    cats = path / "photos" / "cats"
    cats.mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(cats / "whole.png")
    (cats / "torn.png").write_bytes((cats / "whole.png").read_bytes()[:60])
    np.save(path / "three.npy", np.eye(3))
    np.save(path / "pairs.npy", np.zeros((2, 32, 32, 3), np.uint8))
    (path / "exported.csv").write_text('# {"schema": 1}\nindex,a\n0,1\n')
    (path / "foreign").mkdir()
    (path / "foreign" / "notes.txt").write_text("not a run")
    (path / "short.csv").write_text("0,1,0\n")
    (path / "threes.csv").write_text(",".join("3" * 50) + "\n")
    (path / "broken.yaml").write_text("images: [\n")
    torn = path / "torn"
    torn.mkdir()
    (torn / "config.yaml").write_text("budget: many\n")
    (torn / "environment.json").write_text('{"made_by": "search"}')


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search", "missing.yaml"], ["missing.yaml", "readable"]),
        (["search", "broken.yaml"], ["broken.yaml", "YAML"]),
        (["search", "--set", "budgt=5"], ["budgt", "did you mean 'budget'"]),
        (["search", "--set", "images.sorce=x"], ["images.sorce", "did you mean 'images.source'"]),
        (["search", "--set", "budget=0"], ["budget", "1", "got 0"]),
        (["search", "--set", "protocol.n_splits=0"], ["protocol.n_splits", "1", "got 0"]),
        (["search", "--set", "ratio=3"], ["multiple of", "ratio", "50"]),
        (["search", "--set", "ratio=true"], ["ratio", "whole number"]),
        (["search", "--set", "protocol.n_folds=60"], ["protocol.n_folds", "50", "got 60"]),
        (
            ["search", "--tasks", "16", "--set", "confirm.n_random=300"],
            ["confirm.n_random", "tasks", "got 300"],
        ),
        (["search", "--tasks", "0"], ["tasks", "1", "got 0"]),
        (["search", "--min-ablation", "1.5"], ["min_ablation", "1", "got 1.5"]),
        (
            ["search", "--tasks", "6", "--min-ablation", "1"],
            ["tasks", "at most 5", "min_ablation", "got 6"],
        ),
        (["search", "--features", "randm"], ["closed_form.features", "did you mean 'random'"]),
        (["search", "--features", "gone.npy"], ["closed_form.features", "gone.npy"]),
        (["search", "--set", "closed_form.kernel=gone.npy"], ["closed_form.kernel", "gone.npy"]),
        (["search", "--features", "three.npy"], ["closed_form.features", "50 images", "got 3"]),
        (["search", "--set", "closed_form.kernel=three.npy"], ["closed_form.kernel", "[3, 3]"]),
        (["search", "--set", "warm_start=5"], ["warm_start", "swap", "got 5"]),
        (["search", "--known", "gone.csv"], ["gone.csv"]),
        (["search", "--known", "short.csv"], ["known", "50", "got 3"]),
        (["search", "--known", "classes", "--set", "ratio=1"], ["known", "25", "classes"]),
        (["search", "--resume", "torn", "--tasks", "3"], ["--resume", "torn"]),
        (["search", "--resume", "torn", "--min-ablation", "0.5"], ["--resume", "torn"]),
        (["search", "--resume", "torn", "--known", "classes"], ["--resume", "torn"]),
        (["search", "--resume", "torn", "--features", "random"], ["--resume", "torn"]),
        (["search", "--set", "proposer=TwoPointDE"], ["proposer", "TwoPointsDE"]),
        (["search", "--set", "images.source=digit"], ["source", "did you mean 'digits'"]),
        (["search", "--set", "images.source=folder"], ["root", "folder"]),
        (["search", "--set", "images.source=folder", "--root", "gone"], ["root", "gone"]),
        (["search", "--set", "images.source=folder", "--root", "empty"], ["empty"]),
        (["search", "--set", "images.source=folder", "--root", "photos"], ["torn.png"]),
        (["search", "--set", "images.per_class=999"], ["per_class", "999"]),
        (["search", "--device", "cuda:99"], ["device", "cuda:99"]),
        (["search", "--jobs", "-1"], ["jobs", "-1"]),
        (["search", "--out", "foreign"], ["out", "foreign", "other files"]),
        (["search", "--resume", "foreign"], ["foreign", "config.yaml"]),
        (["search", "--resume", "torn"], ["torn", "budget"]),
        (["search", "--resume", "torn", "--seed", "1"], ["--resume must stand", "torn"]),
        (["search", "torn"], ["the folder 'torn'", "'torn/config.yaml'"]),
        (
            ["search", "--set", "images={source: folder, n_classes: 2}", "--root", "pairs.npy"],
            ["root", "pairs.npy", "source of their own, 'arrays'"],
        ),
        (
            ["search", "--set", "images.source=arrays", "--root", "photos"],
            ["root", "the folder", "photos'", "'folder'"],
        ),
        (["score", "gone.csv"], ["gone.csv"]),
        (["score", "torn"], ["the folder 'torn'", "'torn/tasks.npz'"]),
        (["score", "exported.csv"], ["'exported.csv'", "labeling per row", ".npz"]),
        (["score", "short.csv"], ["short.csv", "50", "got 3"]),
        (["score", "threes.csv"], ["threes.csv", "0 and 1", "3"]),
        (["score", "short.csv", "--agreement", "--confirm"], ["--agreement", "--confirm"]),
        (["score", "short.csv", "--agreement"], ["short.csv", "50", "got 3"]),
        (
            ["score", "short.csv", "--agreement", "--set", "images.n_images=1797"],
            ["digits", "to hold out", "select fewer"],
        ),
        (
            ["score", "short.csv", "--agreement", "--set", "agreement.n_pairs=0"],
            ["agreement.n_pairs", "1", "got 0"],
        ),
        (["report", "foreign"], ["foreign"]),
        (["report", "three.npy"], ["three.npy", "which is a file"]),
        (["export", "foreign"], ["foreign", "no config.yaml", "taskdisc runs"]),
        (["export", "torn"], ["torn", "finished run", "--resume torn"]),
        (["export", "short.csv"], ["RUN", "the file 'short.csv'"]),
        (["propagate", "gone"], ["RUN", "'gone'", "does not exist"]),
        (["propagate", "short.csv"], ["--images", "short.csv"]),
        (["export", "foreign", "--out", "tasks.txt"], [".npz or .csv", "tasks.txt"]),
        (["study", "reliability"], ["study", "score-reliability"]),
        (["study", "noise", "missing.yaml"], ["missing.yaml", "readable"]),
        (["study", "noise", "--set", "n_stes=3"], ["n_stes", "did you mean 'n_sets'"]),
        (["study", "noise", "--set", "n_sets=0"], ["n_sets", "1", "got 0"]),
        (["study", "noise", "--jobs", "-1"], ["jobs", "-1"]),
        (["study", "noise", "--out", "foreign"], ["out", "foreign", "other files"]),
        (["study", "class-recovery", "--set", "images.source=digit"], ["did you mean 'digits'"]),
        (["study", "class-recovery", "--set", "images.source=folder"], ["root", "folder"]),
        (
            ["study", "baseline", "--set", "classes=[one, 2, 3]", "--set", "images.per_class=5"],
            ["classes", "digit", "got 'one'"],
        ),
        (
            ["study", "baseline", "--set", "images={n_classes: 4, per_class: 500}"],
            ["per_class", "got 500"],
        ),
        (["study", "ablation", "--set", "images.n_images=40"], ["images", "n_images"]),
        (["study", "size-ratio", "--set", "sizes=[1000]"], ["500 images", "use fewer"]),
        (["study", "positives", "--set", "n_positives=[10, 300]"], ["300 images", "use fewer"]),
        (["study", "adversarial-split", "--set", "positive_classes=[0, 1, 2, x, y]"], ["'x'"]),
        (["study", "clustering", "--set", "cases=[{n_images: 21}]"], ["multiple of", "21"]),
        (["study", "--resume", "foreign"], ["foreign", "config.yaml"]),
        (["study", "--resume", "torn"], ["torn", "which is of `taskdisc search`"]),
        (["study", "noise", "--resume", "torn"], ["--resume must stand without a name", "torn"]),
        (["study", "--resume", "torn", "--seed", "1"], ["--resume must stand", "torn"]),
        (["images", "cifar11"], ["source", "cifar1"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_sentence(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from taskdisc.cli import main

    bad_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["taskdisc", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("taskdisc: ")
    for word in words:
        assert word in captured.err
    assert not (tmp_path / "runs").exists(), "a refused command must leave nothing behind"


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = taskdisc("search", "--set", "budgt=5", "--debug", cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_a_run_folder_that_is_taken_is_refused(straight: Path) -> None:
    done = taskdisc("search", *SMALL, f"--out={straight}", cwd=straight.parent)
    assert done.returncode == 2
    assert f"--resume {straight}" in done.stderr


def test_help_and_import_load_nothing_heavy() -> None:
    code = (
        "import sys, taskdisc, taskdisc.cli; "
        "print([n for n in ('torch', 'nevergrad', 'sklearn', 'scipy', 'matplotlib', 'numpy') "
        "if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_search_stopped_in_confirmation_says_so() -> None:
    from taskdisc.cli import _where_stopped

    assert _where_stopped(4, 400, 0) == "after 4 of 400 labelings"
    assert _where_stopped(4, 400, 7) == "in confirmation, 4 labelings scored"
