"""Commands leave on a cluster what they leave without one."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_results import results, timeless

from taskdisc.cli import main
from taskdisc.cluster.here import ClusterHere
from taskdisc.files import write_npz
from taskdisc.images import load_images

TINY = (
    "--set=images.n_images=20 --set=ratio=1 --set=tasks=1 "
    "--set=protocol={n_steps:~8,n_splits:~5} "
    "--set=confirm={n_splits:~5,n_random:~20,random_splits:~1} "
)
COMMANDS = {
    "search": "search --out=run --set=scorer=trained --set=budget=6 --set=batch=3 " + TINY,
    "study": "study noise --out=run --set=n_sets=3 --set=n_images=10 --set=search={tasks:~1,"
    "budget:~5,protocol:~{n_steps:~8},closed_form:~{kernel:~linear},"
    "confirm:~{n_splits:~2,n_random:~20,random_splits:~1}}",
    "study of nested work": "study agreement --out=run --set=images={n_classes:~2,per_class:~10} "
    "--set=ratios=[1] --set=n_found=0 --set=n_class=1 "
    "--set=agreement={n_held_out:~30,n_pairs:~2,n_random:~4,n_steps:~8}",
    "mtl": "mtl --out=run --set=images.n_images=60 --seeds=2 --set=single_tasks=false "
    "--set=tasks={digit:~{kind:~classification,of:~digit}} --set=rows={equal:~{}} "
    "--set=common={backbone:~lenet,training:~{epochs:~2,batch:~30}}",
    "score": "score labels.csv --json --confirm " + TINY,
    "agreement": "score labels.csv --json --agreement "
    "--set=agreement={n_held_out:~30,n_pairs:~2,n_random:~4,n_steps:~8} " + TINY,
    "propagate": "propagate tasks.npz --images=arrays --root=images.npz --members=4 --json "
    "--out=out/labels.npz",
}


def words_of(name: str) -> list[str]:
    """The words of a command; `~` in them stands for a space."""
    return [word.replace("~", " ") for word in COMMANDS[name].split()]


def left_by(
    words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> dict[str, Any]:
    """What a command leaves in its run folder or its file, and what it prints as JSON."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "out").mkdir()
    labeling = np.arange(20) % 2
    (folder / "labels.csv").write_text(",".join(map(str, labeling)) + "\n")
    images = load_images("digits", cache=False).take(range(40)).resized(32)
    write_npz(folder / "images.npz", {"images": images.images})
    tasks = {
        "labelings": labeling[None].astype(np.uint8),
        "indices": images.indices[:20],
        "hashes": np.array(images.hashes()[:20]),
        **{name: np.ones(1) for name in ("taskness", "sem", "p_adjusted")},
    }
    write_npz(folder / "tasks.npz", tasks)
    monkeypatch.setattr(sys, "argv", ["taskdisc", *words])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    if ended.value.code:
        raise ended.value
    printed = capsys.readouterr().out
    left = {path.name: results(path) for path in (folder / "run", folder / "out") if path.exists()}
    return {**left, "printed": timeless(json.loads(printed)) if "--json" in words else ""}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_leaves_on_a_cluster_what_it_leaves_here(
    name: str,
    here: ClusterHere,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = words_of(name)
    alone = left_by([*words, "--jobs=1"], tmp_path / "alone", monkeypatch, capsys)
    by_file = left_by(
        [*words, f"--cluster={here.scheduler_file}"], tmp_path / "cluster", monkeypatch, capsys
    )
    assert by_file == alone
    assert alone["printed"] or len(alone["run"]) > 3


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_is_no_scheduler(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        left_by([*words_of(name), "--cluster=nobody"], tmp_path / "x", monkeypatch, capsys)
    assert capsys.readouterr().err.splitlines()[-1].startswith("taskdisc: `cluster` must be")
    assert not (tmp_path / "x" / "run").exists()
