"""The connection to a Dask scheduler, of which there is one in a process."""

import atexit
import gc
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskdisc.archives import one_line
from taskdisc.errors import RunFailedError, SettingError, shown
from taskdisc.json_text import read_json

if TYPE_CHECKING:
    from distributed import Client

CONNECT_S = 5
"""Seconds in which a scheduler must answer."""

FILE_S = 60
"""Seconds in which a scheduler that is just starting must have written its file."""

_clients: dict[str, "Client"] = {}


class Scheduler:
    """A Dask scheduler that answers.

    Attributes:
        address: `tcp://host:port` or `tls://host:port`.

    Args:
        at: The address, or the file of `dask scheduler --scheduler-file`.

    Raises:
        SettingError: Dask is missing, it is neither of the two, or none answers there.
    """

    def __init__(self, at: str) -> None:
        self.address = _address(at)
        self._client = _connected(self.address)

    def check(self) -> None:
        """Raise a RunFailedError if the scheduler was lost."""
        if self._client.status != "running":
            raise self._lost()

    @contextmanager
    def reached(self) -> "Iterator[Client]":
        """Dask's client, whose errors within the context are a RunFailedError."""
        self.check()
        try:
            yield self._client
        except Exception as error:
            if isinstance(error, OSError | RuntimeError) or self._client.status != "running":
                raise self._lost() from error
            raise

    def cancel(self, futures: list[Any]) -> None:
        """Stop what nobody waits for any more; a scheduler that is lost does so by itself."""
        if futures and self._client.status == "running":
            self._client.cancel(futures)

    def _lost(self) -> RunFailedError:
        return RunFailedError(
            f"the scheduler at {self.address} was lost; what was computed is kept: start it and "
            "its workers again, and resume."
        )


def say(text: str) -> None:
    """Tell the user something of the cluster."""
    print(f"taskdisc: {text}.", file=sys.stderr, flush=True)


def _address(at: str) -> str:
    """The address that was given, or that stands in the scheduler file."""
    address: object = at
    if at.endswith(".json"):
        _wait_for(Path(at))
        try:
            address = read_json(Path(at))["address"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingError(
                f"`cluster` must be a file of dask scheduler --scheduler-file, got '{at}', which "
                f"cannot be read as one ({one_line(error)})."
            ) from error
    if not isinstance(address, str) or not re.fullmatch(r"(tcp|tls)://\S+:[0-9]+", address):
        raise SettingError(
            "`cluster` must be the address of a Dask scheduler, tcp://host:port or "
            "tls://host:port, or the .json of dask scheduler --scheduler-file, got "
            f"{shown(address)}."
        )
    return address


def _wait_for(file: Path) -> None:
    """Wait for what a scheduler writes that was started just before."""
    if not file.exists():
        say(f"waiting for '{file}', which a scheduler writes when it has started")
    patience = time.monotonic() + FILE_S
    while not (file.exists() and file.stat().st_size) and time.monotonic() < patience:
        time.sleep(0.2)


def _connected(address: str) -> "Client":
    """The one connection of this process to a scheduler, until the process ends."""
    try:
        import dask
        from distributed import Client
    except ImportError as error:
        raise SettingError(
            "`cluster` must be left out without Dask, which is not installed here; get it by: "
            "pip install 'taskdisc[dask]'."
        ) from error
    if address in _clients and _clients[address].status == "running":
        return _clients[address]
    # What goes wrong is said by our errors; Dask would log it several times beside them.
    for name in ("distributed", "distributed.client", "distributed.gc"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    logging.getLogger("asyncio").addFilter(_not_of_dask)
    # A client that has failed is closed when it is collected. In the thread that the next one
    # starts, that would wait for the next one, which waits for the thread.
    gc.collect()
    try:
        with dask.config.set({"distributed.comm.timeouts.connect": f"{CONNECT_S}s"}):
            client = Client(address, timeout=CONNECT_S, set_as_default=False, name="taskdisc")
    # A file of a TLS configuration may be missing or damaged, and another service may answer.
    except Exception as error:
        raise SettingError(
            f"`cluster` must be the address of a Dask scheduler that runs, got {address!r}, where "
            f"none answers ({one_line(error)}); start one with: dask scheduler."
        ) from error
    _clients[address] = client
    return client


def _not_of_dask(record: logging.LogRecord) -> bool:
    """Not what Dask leaves behind where it gave up fetching from a worker that died."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not kind.__module__.startswith("distributed")


@atexit.register
def disconnect() -> None:
    """End all connections of this process."""
    while _clients:
        _, client = _clients.popitem()
        client.close(timeout=3)
