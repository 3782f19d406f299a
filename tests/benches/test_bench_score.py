"""Both sides of the bench of scores, and what stopping early would save."""

import os

import numpy as np
import pytest
from typer.testing import CliRunner

from taskdisc.benches import stopping
from taskdisc.benches.score import _PyTorchAlone
from taskdisc.benches.step import bench_step
from taskdisc.benches.stopping import saving, stopped
from taskdisc.cli import app
from taskdisc.images import as_image_set
from taskdisc.pool import Pool
from taskdisc.taskness import compiled, convolutions
from taskdisc.taskness.baselines import _mean_images
from taskdisc.taskness.protocol import Protocol
from taskdisc.taskness.score import Scores, TrainedScorer, read_out


def stopped_plainly(curve: np.ndarray, patience: int) -> tuple[float, int]:
    """One curve, step by step."""
    lowest, best = np.inf, 0
    for position in range(len(curve) - 4):
        smooth = float(np.median(curve[position : position + 5]))
        if smooth < lowest:
            lowest, best = smooth, position
        if position - best == patience:
            break
    return lowest, position + 4


@pytest.mark.parametrize("patience", [1, 3, 7, 29])
def test_stopping_agrees_with_going_step_by_step(patience: int) -> None:
    rng = np.random.default_rng(0)
    curves = rng.standard_normal((4, 6, 30)).cumsum(axis=-1).astype(np.float32)
    g, steps = stopped(curves, patience)
    for index in np.ndindex(4, 6):
        assert (g[index], steps[index]) == stopped_plainly(curves[index], patience)
    assert (g >= read_out(curves)).all()
    assert patience < 29 or ((g == read_out(curves)).all() and (steps == 29).all())


def test_a_curve_that_falls_again_is_scored_otherwise_by_who_stopped() -> None:
    falls_once = np.concatenate([np.linspace(2, 1, 11), np.full(10, 1.5)])
    falls_again = np.concatenate([np.linspace(2, 1, 11), np.full(5, 1.5), np.full(5, 0.5)])
    curves = np.stack([falls_once, falls_again])[None]
    scores = Scores(np.zeros((1, 2)), np.full((1, 2), 2.0), curves, curves)
    # Past the median's window the rise is known after 4 steps, the fall after 8.
    early, late = saving(scores, 4), saving(scores, 12)
    assert (early.same, late.same) == (0.5, 1.0)
    assert early.largest == pytest.approx((read_out(falls_once) - 0.5) / 2 / 2)
    assert early.steps < late.steps <= 1 and early.steps <= early.together
    assert late.largest == 0


def test_pytorch_alone_scores_alike_without_the_compiled_functions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _mean_images()  # laid out for the usual way before
    rng = np.random.default_rng(0)
    images = as_image_set(rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8))
    labeling = np.arange(20)[None] % 2
    protocol = Protocol(n_splits=5, n_steps=5)
    used = []

    def forward(self: object, chunk: int) -> None:
        used.append(chunk)
        plain_forward(self, chunk)  # type: ignore[arg-type]

    plain_forward = convolutions.PlainConvolutions.forward
    monkeypatch.setattr(convolutions.PlainConvolutions, "forward", forward)
    (alone,) = TrainedScorer(images, protocol, 0, _PyTorchAlone(1, "cpu")).score(labeling)
    assert used
    used.clear()
    (usual,) = TrainedScorer(images, protocol, 0, Pool(1, "cpu")).score(labeling)
    assert bool(used) == (compiled.library() is None)
    np.testing.assert_allclose(alone.validation, usual.validation, rtol=1e-4)


def test_the_environment_can_do_without_the_compiled_functions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = compiled.library()
    monkeypatch.setenv("TASKDISC_COMPILED", "0")
    assert compiled.library() is None
    monkeypatch.setenv("TASKDISC_COMPILED", "1")
    assert compiled.library() is built


def test_the_command_prints_what_stopping_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "PANEL_SEEDS", (0,))
    monkeypatch.setitem(stopping.PROTOCOLS, "stratified", Protocol(n_splits=5, n_steps=10))
    monkeypatch.setitem(stopping.PROTOCOLS, "source", Protocol(n_steps=12))
    sets = ["n_random=3", "n_swapped=0", "n_components=0", "images.per_class=5"]
    arguments = [part for each in sets for part in ("--set", each)]
    printed = CliRunner().invoke(app, ["bench", "stopping", "--jobs", "1", *arguments])
    assert printed.exit_code == 0, printed.output
    assert "10 steps" in printed.output and "12 steps" in printed.output
    assert "same g" in printed.output


def test_the_parts_of_a_step_are_less_than_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    bench_step(2)
    lines = {line[2:30].strip(): line for line in capsys.readouterr().out.splitlines()[1:]}
    milliseconds = {name: float(line.split(" ms")[0].split()[-1]) for name, line in lines.items()}
    whole = milliseconds["PyTorch alone"]
    assert 0 < milliseconds["… products alone"] < whole
    assert ("population, compiled" in lines) == (compiled.library() is not None)
    assert os.environ.get(compiled.SWITCH) is None
