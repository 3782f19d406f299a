"""Whole searches in memory: every way to propose with every way to score, and the two stages."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskdisc.config import SearchSettings, settings_from
from taskdisc.discovery.run import find, run_search
from taskdisc.discovery.space import Space
from taskdisc.errors import RunFolderError
from taskdisc.images import ImageSet
from taskdisc.journal import MemoryJournal
from taskdisc.labelings import ablations, is_near
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.taskness.closed_form import calibrated, closed_form_taskness
from taskdisc.taskness.score import score

TINY: dict[str, Any] = {
    "budget": 12,
    "batch": 5,
    "tasks": 2,
    "min_ablation": 0.5,
    "closed_form": {"kernel": "rbf"},
    "protocol": {"n_steps": 5, "n_splits": 5},
    "confirm": {"n_splits": 2, "n_random": 40, "random_splits": 1},
}
TWO_STAGES: dict[str, Any] = {
    **TINY,
    "scorer": "two-stage",
    "proposer": "random",
    "budget": 23,
    "train_share": 0.4,
}
POOL = Pool(1, "cpu")


def settings_with(base: dict[str, Any] = TINY, **changes: Any) -> SearchSettings:
    return settings_from(SearchSettings, {**base, **changes})


@pytest.fixture(scope="module")
def images(digits: ImageSet) -> ImageSet:
    return digits.take(np.arange(0, 40, 2))


@pytest.mark.parametrize("proposer", ["swap", "spectral", "random", "TwoPointsDE"])
@pytest.mark.parametrize("scorer", ["closed-form", "two-stage", "trained"])
def test_every_proposer_with_every_scorer(images: ImageSet, proposer: str, scorer: str) -> None:
    settings = settings_with(proposer=proposer, scorer=scorer)
    result = run_search(images, settings, POOL, progress=Progress())
    assert 1 <= len(result.trials) <= 12
    assert len(result.candidates) == 2
    assert (result.labelings.sum(axis=1) == 4).all()
    assert ablations(result.labelings)[0, 1] >= 0.5
    values = result.to_dict()
    assert (values["proposer"], values["scorer"]) == (proposer, scorer)
    asks = scorer != "trained" or proposer in ("swap", "spectral")
    assert (values["closed_form"] is not None) == asks
    again = run_search(images, settings, POOL, progress=Progress())
    assert np.array_equal(again.labelings, result.labelings)
    assert np.array_equal(again.confirmation.per_split, result.confirmation.per_split)


def test_the_closed_form_is_seen_on_the_trained_scale(images: ImageSet) -> None:
    settings = settings_with(proposer="random")
    space = Space(images, settings)
    found = find(space, POOL, Progress())
    labelings = np.stack([trial.labeling for trial in found.trials])
    assert space.exponent != 1  # this kernel was measured
    expected = calibrated(closed_form_taskness(space.quadratic, labelings), space.exponent)
    np.testing.assert_allclose([trial.taskness for trial in found.trials], expected)


def two_stages(
    images: ImageSet,
    settings: SearchSettings,
    trained: list[dict[str, Any]] | None = None,
) -> tuple[Any, MemoryJournal]:
    log = MemoryJournal()
    log.append(trained or [])
    return find(Space(images, settings), POOL, Progress(), trained_log=log), log


@pytest.mark.parametrize("share", [0.01, 0.4, 1.0])
def test_only_the_best_share_is_trained(images: ImageSet, share: float) -> None:
    settings = settings_with(TWO_STAGES, train_share=share)
    found, log = two_stages(images, settings)
    n_trained = math.ceil(share * 23)
    trained = [line["trial"] for line in log.lines]
    assert len(trained) == len(set(trained)) == n_trained
    # They are the best by the closed form, and are scored as `score` does.
    space = Space(images, settings)
    labelings = np.stack([trial.labeling for trial in found.trials])
    first = calibrated(closed_form_taskness(space.quadratic, labelings), space.exponent)
    assert set(trained) == set(np.argsort(-first, kind="stable")[:n_trained].tolist())
    second = score(
        images, labelings[trained], protocol=settings.protocol, seed=settings.seed, jobs=1
    ).taskness
    seen = np.array([trial.taskness for trial in found.trials])
    np.testing.assert_allclose(seen[trained], second, atol=1e-5)
    rest = np.setdiff1d(np.arange(23), trained)
    np.testing.assert_allclose(seen[rest], first[rest])
    # The best that was trained comes first, however good the others look to the closed form.
    assert found.candidates[0] == trained[int(np.argmax([line["taskness"] for line in log.lines]))]


def test_candidates_are_among_the_trained_where_these_differ(images: ImageSet) -> None:
    found, log = two_stages(images, settings_with(TWO_STAGES, min_ablation=0.25))
    assert len(found.candidates) == 2
    assert set(found.candidates) <= {line["trial"] for line in log.lines}
    seen = [found.trials[i].taskness for i in found.candidates]
    assert seen == sorted(seen, reverse=True)


def test_nothing_near_to_known_labelings_is_trained(images: ImageSet, tmp_path: Path) -> None:
    straight, log = two_stages(images, settings_with(TWO_STAGES))
    best = straight.trials[log.lines[0]["trial"]].labeling
    np.savetxt(tmp_path / "known.csv", best[None], fmt="%d", delimiter=",")
    settings = settings_with(TWO_STAGES, known=[str(tmp_path / "known.csv")])
    found, log = two_stages(images, settings)
    for line in log.lines:
        assert not is_near(found.trials[line["trial"]].labeling, best[None], 0.5)


def test_the_second_stage_goes_on_from_any_place(images: ImageSet) -> None:
    settings = settings_with(TWO_STAGES, protocol={"n_steps": 5, "n_splits": 2})  # two to a group
    straight, log = two_stages(images, settings)
    assert len(log.lines) == 10
    for cut in range(11):
        found, longer = two_stages(images, settings, log.lines[:cut])
        assert found.candidates == straight.candidates
        assert [t.taskness for t in found.trials] == [t.taskness for t in straight.trials]
        assert [(line["trial"], line["taskness"]) for line in longer.lines] == [
            (line["trial"], line["taskness"]) for line in log.lines
        ]


def test_jobs_do_not_change_the_second_stage(images: ImageSet) -> None:
    settings = settings_with(TWO_STAGES)
    logs = (MemoryJournal(), MemoryJournal())
    for jobs, log in zip((1, 2), logs, strict=True):
        find(Space(images, settings), Pool(jobs, "cpu"), Progress(), trained_log=log)
    taken = [[(line["trial"], line["taskness"]) for line in log.lines] for log in logs]
    assert taken[0] == taken[1]


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"trial": 0},
        {"trial": 999, "taskness": 0.1},
        {"trial": None, "taskness": 0.1},
        {"trial": [0], "taskness": 0.1},
        {"trial": 0, "taskness": "high"},
    ],
)
def test_a_damaged_log_of_the_second_stage_is_refused(
    images: ImageSet, line: dict[str, Any]
) -> None:
    with pytest.raises(RunFolderError, match="trained labelings must be the best of its trials"):
        two_stages(images, settings_with(TWO_STAGES), [line])
