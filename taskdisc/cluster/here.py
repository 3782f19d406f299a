"""A Dask scheduler and workers as processes of this machine, to try a cluster and to time it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from taskdisc.errors import RunFailedError

START_S = 60
"""Seconds in which a scheduler must have started; its imports alone take some on a busy machine."""


class ClusterHere:
    """A scheduler of 127.0.0.1 and its workers of one thread each, ended on leaving the context.

    Attributes:
        address: Of the scheduler.
        scheduler_file: Where it says the same.
        scheduler: Its process.
        workers: Theirs, of those to start with.

    Args:
        folder: For their logs and files; it must exist.
        n_workers: Workers to start with.
        port: Of the scheduler; 0 for any that is free.
        options: Further ones for both commands, such as those of TLS.

    Raises:
        RunFailedError: the scheduler doesn't start.
    """

    def __init__(
        self, folder: Path, n_workers: int = 0, port: int = 0, options: tuple[str, ...] = ()
    ) -> None:
        self._folder, self._options = folder, options
        self._processes: list[subprocess.Popen[bytes]] = []
        self.scheduler_file = folder / "scheduler.json"
        self.scheduler_file.unlink(missing_ok=True)
        tls = ["--protocol", "tls"] if options else []
        arguments = ["--port", str(port), "--scheduler-file", str(self.scheduler_file), *tls]
        self.scheduler = self._start("scheduler", arguments)
        patience = time.monotonic() + START_S
        while not self.scheduler_file.exists():
            if self.scheduler.poll() is not None or time.monotonic() > patience:
                self.scheduler.kill()
                raise RunFailedError(
                    f"a Dask scheduler did not start; '{folder}/scheduler.log' says why."
                )
            time.sleep(0.05)
        self.address: str = json.loads(self.scheduler_file.read_text())["address"]
        self.workers = [self.add_worker() for _ in range(n_workers)]

    def add_worker(self, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start one more worker, with some variables of its own.

        It has no process beside it that starts another one when it dies.
        """
        arguments = [self.address, "--nthreads", "1", "--no-nanny"]
        return self._start(
            "worker", [*arguments, "--local-directory", str(self._folder)], environment
        )

    def close(self) -> None:
        """End all processes that this has started."""
        for process in self._processes:
            process.kill()  # nothing of theirs is to be kept, and a kind end takes seconds
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start(
        self, what: str, arguments: list[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        module = f"distributed.cli.dask_{what}"
        command = [sys.executable, "-m", module, "--host", "127.0.0.1", "--no-dashboard"]
        with (self._folder / f"{what}.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, *self._options, *arguments],
                cwd=self._folder,
                env={**os.environ, **(environment or {})},
                stdout=log,
                stderr=log,
                # Ctrl-C is for the client.
                start_new_session=True,
            )
        self._processes.append(process)
        return process
