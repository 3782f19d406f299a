"""SIGTERM, by which batch systems end a job, stops a command as Ctrl-C does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from taskdisc.pool import interruptible, stopped_status

LONG = ["--set=tasks={digit: {kind: classification, of: digit}}", "--set=single_tasks=false"]
LONG += ["--set=rows={a: {}, b: {}}", "--seeds=1"]


def test_the_status_is_that_of_the_first_signal() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with interruptible():
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)  # a second Ctrl-C ends what still goes on
            assert stopped_status() == status
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_second_sigterm_does_not_cut_the_last_words_off() -> None:
    with interruptible():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stopped_status() == 143


# In a training that the process itself runs, and where its workers get the signal too.
@pytest.mark.parametrize(("jobs", "whole_job"), [(1, False), (2, True)])
def test_a_comparison_says_how_to_go_on(tmp_path: Path, jobs: int, whole_job: bool) -> None:
    command = [sys.executable, "-m", "taskdisc", "mtl", *LONG, "--set=common.training.epochs=900"]
    with subprocess.Popen(
        [*command, f"--jobs={jobs}", "--out=run"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        patience = time.monotonic() + 120
        while not list(tmp_path.glob("run/cells/*/last.ckpt")):
            assert process.poll() is None and time.monotonic() < patience
            time.sleep(0.01)
        (os.killpg if whole_job else os.kill)(process.pid, signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143
    assert stderr == "stopped after 0 of 2 cells; go on with: taskdisc mtl --resume run\n"
