"""Run folders written by hand: ten images, two positives to a labeling, every figure known."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from taskdisc.config import SearchSettings, dump_settings, settings_from
from taskdisc.discovery.result import SCHEMA
from taskdisc.labelings import to_hex

N_IMAGES = 10
POSITIVES = [[0, 1], [2, 3], [4, 5], [0, 2], [6, 7]]
SEEN = [0.1, 0.4, 0.2, 0.6, -0.2]
"""Trials 3, 2 and 4 are put forward: 1, the second best, shares a positive with 3."""

MATCHES = [("cat & dog", 2), ("ant", 1), ("cow", 2)]
"""Class that each of them matches, and positives that they share."""


def write_unfinished(folder: Path, n_trials: int = 5, **changes: Any) -> Path:
    """A run that was stopped after `n_trials` of 8."""
    folder.mkdir(parents=True)
    settings = {
        "budget": 8,
        "proposer": "TwoPointsDE",
        "scorer": "trained",
        "confirm": {"n_splits": 2, "n_random": 60, "random_splits": 2},
        "protocol": {"n_steps": 5, "n_splits": 5},
        **changes,
    }
    (folder / "config.yaml").write_text(dump_settings(settings_from(SearchSettings, settings)))
    environment = {
        "schema": 2,
        "made_by": "search",
        "taskdisc": "0.1.0",
        "packages": {"numpy": "2.0.0"},
        "seed": 0,
        "images": {"n": N_IMAGES, "content": "0123456789abcdef"},
        "command": ["/somewhere/bin/taskdisc", "search", "my settings.yaml"],
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    lines = [
        {
            "trial": trial,
            "labeling": to_hex(labeling(POSITIVES[trial])),
            "taskness": SEEN[trial],
            "seconds": 1.5,
        }
        for trial in range(n_trials)
    ]
    write_lines(folder / "trials.jsonl", lines)
    return folder


def write_finished(
    folder: Path, confirmed: Sequence[float] = (0.05, 0.5, 0.3), **changes: Any
) -> Path:
    """A finished run; `confirmed` taskness of trials 3, 2 and 4, a task from 0.1 on."""
    write_unfinished(folder, **changes)
    evidence: list[dict[str, Any]] = [
        {
            "kind": "task",
            "index": index,
            "per_split": [mean - 0.02, mean + 0.02],
            "training": [0.7, 0.5, 0.4, 0.3, 0.2, 0.1],
            "validation": [0.7, 0.6, 0.4, 0.5, 0.9, 4.0],
            "baseline": 0.5,
            "seconds": 0.5,
        }
        for index, mean in enumerate(confirmed)
    ]
    evidence += [
        {"kind": "random", "index": i, "per_split": [i / 600 - 0.01, i / 600 + 0.01], "seconds": 0}
        for i in range(60)
    ]
    write_lines(folder / "confirm.jsonl", evidence)
    tasks = [
        {
            "positives": POSITIVES[trial],
            "trial": trial,
            "chosen": chosen,
            "seen": SEEN[trial],
            "confirmed": {
                "mean": mean,
                "sem": 0.02,
                "n_splits": 2,
                "p": 0.01,
                "p_adjusted": 0.03 if mean > 0.1 else 0.2,
            },
            "is_task": mean > 0.1,
            "known_classes": {"kind": {name: 2}},
            "match": {
                "kind": {
                    "class": name,
                    "shared": shared,
                    "share": shared / 2,
                    "recovered": shared == 2,
                    "flipped": False,
                }
            },
        }
        for chosen, (trial, mean, (name, shared)) in enumerate(
            zip((3, 2, 4), confirmed, MATCHES, strict=True)
        )
    ]
    result = {
        "schema": SCHEMA,
        "n_images": N_IMAGES,
        "seconds": {"search": 7.5, "confirm": 61.0},
        "threshold": 0.09,
        "random": {"n": 60},
        "recovered": {"kind": {"classes": ["cow"], "n_classes": 5, "n_by_candidates": 2}},
        "tasks": sorted(tasks, key=lambda task: -task["confirmed"]["mean"]),  # type: ignore[index]
    }
    (folder / "result.json").write_text(json.dumps(result))
    images = np.arange(N_IMAGES * 32 * 32 * 3).reshape(N_IMAGES, 32, 32, 3) % 251
    np.savez(folder / "pictures.npz", positions=np.arange(N_IMAGES), images=images.astype(np.uint8))
    found = [task for task in result["tasks"] if task["is_task"]]
    np.savez(
        folder / "tasks.npz",
        labelings=np.array([labeling(task["positives"]) for task in found], dtype=np.uint8),
        indices=np.arange(N_IMAGES),
        hashes=np.array([f"{i:016x}" for i in range(N_IMAGES)]),
        taskness=np.array([task["confirmed"]["mean"] for task in found]),
        sem=np.array([0.02] * len(found)),
        p_adjusted=np.array([0.03] * len(found)),
    )
    return folder


def labeling(positives: list[int]) -> np.ndarray:
    labels = np.zeros(N_IMAGES, np.uint8)
    labels[positives] = 1
    return labels


def write_lines(file: Path, lines: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
