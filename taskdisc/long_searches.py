"""What long searches cost: memory and time against the number of trials."""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

N_TRIALS = (1_000, 10_000, 100_000, 1_000_000)
PROPOSERS = {"random": 1_000_000, "TwoPointsDE": 10_000}
"""Those that are measured, and up to how many trials."""


def long_searches() -> str:
    """A table, in Markdown, of what searches of 10³ to 10⁶ trials cost; prints each row as it is.

    Each row is a process of its own, which searches 50 digits by the closed form, opens the journal
    that this left and resumes from it: seconds of the processor in each, the mean time of one
    append at the end [ms], the size of the journal [MB] and the most memory that the process took
    beyond that of a search of one trial [MB].
    """
    heading = "| proposer | trials | search [s] | open [s] | resume [s] | append [ms] | "
    heading += "journal [MB] | memory [MB] |\n|" + "---|" * 8
    rows = [heading]
    print(heading, flush=True)
    for proposer, most in PROPOSERS.items():
        for n in N_TRIALS:
            if n <= most:
                code = f"from {__name__} import measure; measure({proposer!r}, {n})"
                done = subprocess.run(
                    [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
                )
                rows.append(done.stdout.strip())
                print(rows[-1], flush=True)
    return "\n".join(rows)


def measure(proposer: str, n_trials: int) -> None:
    """Print one row of `long_searches`.

    Args:
        proposer: As in a search's settings.
        n_trials: Labelings to score.
    """
    from taskdisc.config import ImagesSettings, SearchSettings
    from taskdisc.discovery.loop import run_trials
    from taskdisc.discovery.run import load_selected
    from taskdisc.discovery.scorers import SCORERS
    from taskdisc.discovery.space import Space
    from taskdisc.journal import Journal
    from taskdisc.labelings import best_different
    from taskdisc.pool import Pool
    from taskdisc.progress import Progress

    images = load_selected(ImagesSettings(), Progress())

    def sit(path: Path, budget: int) -> tuple[Journal, float, float]:
        """The journal after a search, and the seconds that opening it and searching took."""
        space = Space(images, SearchSettings(proposer=proposer, budget=budget))
        scorer = SCORERS["closed-form"].make(space, Pool(1, "cpu"))
        begun = time.process_time()
        journal = Journal(path)
        opened = time.process_time()
        trials = run_trials(space, scorer, journal, Progress())
        best_different(trials.labelings, trials.best_first(), 16, 0.9)
        return journal, opened - begun, time.process_time() - opened

    with tempfile.TemporaryDirectory() as folder:
        sit(Path(folder) / "one.jsonl", 1)
        before = _memory()
        path = Path(folder) / "trials.jsonl"
        _, _, searched = sit(path, n_trials)
        journal, opened, resumed = sit(path, n_trials)
        size = path.stat().st_size / 1e6
        begun = time.perf_counter()
        for _ in range(20):
            journal.append([journal.lines[-1]])
        append = (time.perf_counter() - begun) / 20
    values = (f"{n_trials:,}", *np.round([searched, opened, resumed, 1000 * append, size], 2))
    print(f"| {proposer} | {' | '.join(map(str, values))} | {_memory() - before:.0f} |")


def _memory() -> float:
    """The most memory that this process has taken [MB]."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e6 if sys.platform == "darwin" else 1e3)
