import json
from pathlib import Path

import pytest
from run_files import N_IMAGES, SEEN, write_finished, write_unfinished

from taskdisc.discovery.result import SCHEMA
from taskdisc.errors import RunFolderError
from taskdisc.report.facts import read_facts


def test_facts_of_a_finished_run(tmp_path: Path) -> None:
    facts = read_facts(write_finished(tmp_path / "run"))
    assert facts.is_finished
    assert facts.seen == tuple(SEEN)
    assert facts.best_so_far == (0.1, 0.4, 0.4, 0.6, 0.6)
    assert (facts.n_images, facts.n_positives, facts.n_tasks) == (N_IMAGES, 2, 2)
    # Tasks first, best confirmed first; what the search liked best failed.
    assert [(c.number, c.trial, c.is_task, c.seen) for c in facts.candidates] == [
        (1, 2, True, 0.2),
        (2, 4, True, -0.2),
        (3, 3, False, 0.6),
    ]
    assert [c.positives for c in facts.candidates] == [(4, 5), (6, 7), (0, 2)]
    assert facts.null is not None
    assert facts.null.taskness == pytest.approx([i / 600 for i in range(60)])
    assert (facts.null.n_splits, facts.null.threshold) == (2, 0.09)
    assert facts.n_trainings == (3 * 2 + 60 * 2,) * 2
    assert facts.seconds == {"search": 7.5, "confirm": 61.0}


def test_evidence_is_that_of_its_labeling(tmp_path: Path) -> None:
    best = read_facts(write_finished(tmp_path / "run")).candidates[0].evidence
    assert best is not None
    assert (best.mean, best.sem, best.n_splits, best.p, best.p_adjusted) == (
        0.5,
        0.02,
        2,
        0.01,
        0.03,
    )
    assert best.baseline == 0.5
    assert best.g == 0.25  # (b - g) / b is the confirmed taskness
    assert best.validation == (0.7, 0.6, 0.4, 0.5, 0.9, 4.0)


def test_pictures_are_of_positives_and_negatives(tmp_path: Path) -> None:
    facts = read_facts(write_finished(tmp_path / "run"))
    best = facts.candidates[0]
    assert facts.shown_positives(best) == (4, 5)
    assert facts.shown_negatives(best) == (0, 1, 2, 3, 6, 7, 8, 9)
    assert facts.pictures[1].flat[0] == 32 * 32 * 3 % 251


def test_pictures_may_be_missing(tmp_path: Path) -> None:
    folder = write_finished(tmp_path / "run")
    (folder / "pictures.npz").unlink()
    facts = read_facts(folder)
    assert facts.shown_positives(facts.candidates[0]) == ()
    assert facts.shown_negatives(facts.candidates[0]) == ()


def test_facts_of_an_unfinished_run(tmp_path: Path) -> None:
    folder = write_unfinished(tmp_path / "a run")
    with (folder / "trials.jsonl").open("a") as file:
        file.write('{"trial": 5, "labe')  # torn by a kill
    facts = read_facts(folder)
    assert not facts.is_finished
    assert facts.seen == tuple(SEEN)
    assert [(c.trial, c.evidence) for c in facts.candidates] == [(3, None), (2, None), (4, None)]
    assert facts.n_tasks == 0
    assert facts.n_trainings == (0, 126)
    assert facts.seconds == {"search": 7.5, "confirm": 0}
    assert facts.resume_command == f"taskdisc search --resume '{folder}'"
    assert facts.command == "taskdisc search 'my settings.yaml'"


def test_a_run_stopped_before_its_first_trial(tmp_path: Path) -> None:
    facts = read_facts(write_unfinished(tmp_path / "run", n_trials=0))
    assert (facts.seen, facts.best_so_far, facts.candidates) == ((), (), ())


def test_settings_and_environment_are_told(tmp_path: Path) -> None:
    facts = read_facts(write_finished(tmp_path / "run"))
    settings = dict(facts.configuration)
    assert settings["protocol.n_steps"] == "5"
    assert "images.root" not in settings  # has no value
    assert dict(facts.environment) == {
        "taskdisc": "0.1.0",
        "packages.numpy": "2.0.0",
        "images.n": "10",
        "images.content": "0123456789abcdef",
    }


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"config\.yaml"):
        read_facts(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("environment.json", "{"),
        ("environment.json", "[]"),
        ("environment.json", '{"images": {"n": 10}}'),
        ("trials.jsonl", '{"trial": 0}\n'),
        ("trials.jsonl", '{"labeling": "0", "taskness": 1, "seconds": 1}\n'),
        ("trials.jsonl", "torn\n{}\n"),
        ("confirm.jsonl", ""),
        ("confirm.jsonl", '{"kind": "task", "per_split": 3, "seconds": 0}\n'),
        ("result.json", ""),
        ("result.json", f'{{"schema": {SCHEMA}}}'),
        ("result.json", f'{{"schema": {SCHEMA - 1}}}'),
        ("result.json", f'{{"schema": {SCHEMA + 1}}}'),
        ("pictures.npz", "not an archive"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    folder = write_finished(tmp_path / "run")
    (folder / name).write_text(content)
    with pytest.raises(RunFolderError, match=name) as raised:
        read_facts(folder)
    assert "\n" not in str(raised.value)


def test_evidence_of_another_run_is_refused(tmp_path: Path) -> None:
    folder = write_finished(tmp_path / "run")
    lines = [json.loads(line) for line in (folder / "confirm.jsonl").read_text().splitlines()]
    lines[0]["per_split"] = [0.9, 0.9]
    (folder / "confirm.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(RunFolderError, match=r"confirm\.jsonl"):
        read_facts(folder)
