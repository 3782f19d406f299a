"""Kill a search, a study and a comparison at random moments, resume each, and compare the results.

    python tests/torture.py --kills 100 --seed 0

Every sitting is a command in a process of its own, forked from this one so that importing takes no
time of it, and killed with SIGKILL at a random moment. What was killed is resumed in its folder
until it ends by itself; then all its results but times must equal those of a run that nothing
interrupted. At last a search meets a full disk, a small tmpfs of its own, and goes on once there is
room. The first difference ends the script with status 1.
"""

import argparse
import importlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # no threads of torch before the fork

from run_results import results

import taskdisc.cli
from taskdisc.listing import list_runs

for _name in (  # what the commands import when they need it
    *("jinja2", "joblib", "lightning.pytorch.loggers", "matplotlib.figure", "nevergrad", "PIL"),
    *("rich.table", "scipy.stats", "sklearn.datasets", "tensorboard", "torchjd", "torchmetrics"),
    *("matplotlib.backends.backend_agg", "torch.utils.tensorboard", "sklearn.cluster"),
    *("taskdisc.mtl.train", "taskdisc.report.page", "taskdisc.report.study_page"),
    *("taskdisc.studies.run", "taskdisc.taskness.baselines", "taskdisc.taskness.population"),
):
    importlib.import_module(_name)

DIGITS = ["--set=images.source=digits"]
SEARCH = [
    *("search", *DIGITS, "--set=budget=60", "--set=batch=10", "--set=scorer=two-stage"),
    *("--set=proposer=TwoPointsDE", "--set=train_share=0.2", "--tasks=2"),
    *("--set=images.per_class=4", "--set=closed_form.kernel=linear"),
    "--set=protocol={n_steps: 8, n_splits: 2}",
    "--set=confirm={n_splits: 5, n_random: 40, random_splits: 1}",
]
STUDY = [
    *("study", "noise", "--set=n_sets=5", "--set=n_images=10"),
    "--set=search={tasks: 1, budget: 5, protocol: {n_steps: 8}, closed_form: {kernel: linear},"
    " confirm: {n_splits: 2, n_random: 20, random_splits: 1}}",
]
MTL = [
    *("mtl", *DIGITS, "--set=images.n_images=120", "--seeds=2", "--set=single_tasks=false"),
    "--set=tasks={digit: {kind: classification, of: digit},"
    " odd: {kind: binary, of: digit, positives: [1, 3, 5, 7, 9]}}",
    "--set=rows={equal: {}, pcgrad: {weighting: pcgrad}}",
    "--set=common={backbone: lenet, training: {epochs: 4, batch: 30}}",
]
COMMANDS = {"search": SEARCH, "study": STUDY, "mtl": MTL}

WITH_WORKERS = 0.2
"""Share of the sittings of two workers; the others take one, which is the process itself."""

PART = 0.6
"""Latest moment of a kill, as a share of the processor time that an uninterrupted run takes.

Time of the processor, so that the moments do not depend on what else the machine does.
"""

LATER_S = 0.02
"""And up to so many seconds later, for what waits for the disk takes no processor time."""


def start(arguments: Sequence[str], log: Path) -> int:
    """A command in a process of its own; its number."""
    pid = os.fork()
    if pid:
        return pid
    try:
        # A group of its own, so that what it leaves behind can be told.
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = ["taskdisc", *arguments]
        status = 0
        try:
            taskdisc.cli.main()
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    except BaseException as error:
        os.write(2, repr(error).encode())
    os._exit(99)


def ended(pid: int, within: float = float("inf")) -> tuple[int | None, float]:
    """The exit status of a process, and the seconds of the processor that it took.

    None for the status as soon as it has taken more than `within`.
    """
    clock = (~pid << 3) | 2  # as clock_getcpuclockid(3) makes it on Linux
    took = 0.0
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), took
        took = time.clock_gettime(clock)
        if took >= within:
            return None, took
        time.sleep(0.002)


def sitting(kind: str, folder: Path, jobs: int) -> list[str]:
    """The command that starts a run in a folder, or goes on with it."""
    if (folder / "config.yaml").exists():
        return [kind, f"--resume={folder}", f"--jobs={jobs}"]
    return [*COMMANDS[kind], f"--out={folder}", f"--jobs={jobs}"]


def n_lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def phase(kind: str, folder: Path) -> str:
    """How far a run has come."""
    if not (folder / "config.yaml").exists():
        return "no run yet"
    if kind == "search":
        if (folder / "result.json").exists():
            return "the pages"
        for name, what in (("confirm", "confirmation"), ("trained", "training")):
            if n_lines(folder / f"{name}.jsonl"):
                return "the results" if n_lines(folder / "confirm.jsonl") == 42 else what
        return "the search" if n_lines(folder / "trials.jsonl") else "before the first trial"
    if (folder / "table.csv").exists():
        return "after the results"
    n_cells = {"study": 5, "mtl": 4}[kind]
    if n_lines(folder / "cells.jsonl") == n_cells:
        return "the results"
    if kind == "mtl" and list(folder.glob("cells/*/last.ckpt")):
        return "an epoch of a cell"
    return f"cell {n_lines(folder / 'cells.jsonl') + 1} of {n_cells}"


def differing(folder: Path, straight: dict[str, Any]) -> list[str]:
    """Files in which a run is not like an uninterrupted one."""
    here = results(folder)
    return [n for n in sorted({*here, *straight}) if here.get(n) != straight.get(n)]


def fail(text: str, log: Path) -> None:
    print(f"FAILED: {text}\n{log.read_text()[-3000:] if log.exists() else ''}")
    raise SystemExit(1)


def torture(kind: str, n_kills: int, rng: random.Random, place: Path) -> str:
    """Kill a command `n_kills` times, in as many runs as that takes; a line of what happened."""
    log = place / f"{kind}.log"
    straight = place / f"{kind}-straight"
    took = {}
    for jobs, folder in ((1, straight), (2, place / f"{kind}-workers")):
        status, took[jobs] = ended(start(sitting(kind, folder, jobs), log))
        if status:
            fail(f"{kind} with --jobs {jobs} ends with an error", log)
    expected = results(straight)
    if differing(place / f"{kind}-workers", expected):
        fail(f"{kind} differs with two workers", log)
    print(f"{kind}: {took[1]:.1f} s of the processor, uninterrupted", flush=True)
    phases: Counter[str] = Counter()
    n_runs = n_done = 0
    worked = 0.0
    while n_done < n_kills:
        folder = place / f"{kind}-{n_runs:03d}"
        n_here = 0
        while True:
            jobs = 2 if rng.random() < WITH_WORKERS else 1
            moment = rng.uniform(0, PART * took[jobs])
            pid = start(sitting(kind, folder, jobs), log)
            status, spent = ended(pid, moment if n_done < n_kills else float("inf"))
            worked += spent
            if status == 0:
                break
            if status is not None:
                fail(f"{kind} in {folder} ends with status {status}", log)
            time.sleep(rng.uniform(0, LATER_S))
            os.kill(pid, signal.SIGKILL)
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL:
                continue  # it was faster
            n_done += 1
            n_here += 1
            phases[phase(kind, folder)] += 1
            states = {row["run"]: row["state"] for row in list_runs(place)}
            if states.get(folder.name, "unfinished") not in ("unfinished", "finished"):
                fail(f"{folder} is listed as {states[folder.name]}", log)
        n_runs += 1
        wrong = differing(folder, expected)
        if wrong:
            fail(f"{folder} differs from {straight} after {n_here} kills in {wrong}", log)
        print(f"  run {n_runs} ended alike after {n_here} kills ({n_done}/{n_kills})", flush=True)
    hit = ", ".join(f"{name} {n}" for name, n in phases.most_common())
    return (
        f"{kind}: {n_done} kills in {n_runs} runs, all alike; {worked:.1f} s of the processor "
        f"where uninterrupted runs take {n_runs * took[1]:.1f} s; killed in: {hit}"
    )


def full_disk(place: Path) -> str:
    """A search on a disk that is too small, which is then made larger; what happened."""
    disk, log = place / "disk", place / "disk.log"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        return "full disk: left out, for mounting a tmpfs is not allowed here"
    try:
        folder = disk / "run"
        if ended(start(sitting("search", folder, 1), log))[0] != 1:
            fail("a full disk does not end a search with status 1", log)
        said = log.read_text().splitlines()[-1]
        if not re.search(r"^taskdisc: .*No space left on device.*resume", said):
            fail("a full disk is not said in a sentence", log)
        kept = {file.name: file.read_bytes() for file in folder.glob("*.jsonl")}
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        if ended(start(sitting("search", folder, 1), log))[0]:
            fail("a search does not go on after the disk was full", log)
        for name, content in kept.items():
            whole = content[: content.rfind(b"\n") + 1]
            if not (folder / name).read_bytes().startswith(whole):
                fail(f"a full disk lost lines of {name}", log)
        wrong = differing(folder, results(place / "search-straight"))
        if wrong:
            fail(f"a search differs after a full disk in {wrong}", log)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    return f"full disk: said '{said}', and went on to the same result"


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill runs at random moments and resume them.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=COMMANDS, action="append", help="all without it")
    given = parser.parse_args()
    kinds = given.kind or list(COMMANDS)
    begun = time.monotonic()
    said = []
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        place = Path(name)
        os.environ["TASKDISC_CACHE"] = str(place / ".cache")
        for i, kind in enumerate(kinds):
            n_kills = given.kills * (i + 1) // len(kinds) - given.kills * i // len(kinds)
            # A stream of its own for each kind, so that one can be run again alone.
            rng = random.Random(f"{given.seed} {kind}")
            said.append(torture(kind, n_kills, rng, place))
        if "search" in kinds:
            said.append(full_disk(place))
    print("\n".join(said))
    minutes = (time.monotonic() - begun) / 60
    print(f"seed {given.seed}, {minutes:.1f} minutes: all results are those of uninterrupted runs")


if __name__ == "__main__":
    main()
