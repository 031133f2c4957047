"""Workers are asked before they get work whether they have what the run needs, those that join later too."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from distributed import Client, Worker, WorkerPlugin

from tilestream.cluster.demands import Demands, Difference
from tilestream.codecs.place import Place
from tilestream.errors import ConfigError

TOPIC = "tilestream-refused"
"""Under which a worker that joins later says why it does not."""
TOKEN = ".run-"
"""Names of the files by which workers know a folder again."""
STALE_S = 30 * 86400.0
"""Files of that kind that a killed run has left are removed after a month: no run takes as long."""
ASK_S = 300.0
"""How long workers may take to answer: the first thing that they do is to import the stage, and many do it at once."""
LEAVE_S = 5.0
"""How long the scheduler may take to forget the plugin."""

logger = logging.getLogger(__name__)


class Handshake(WorkerPlugin):
    """Lets only workers start that meet the demands of a run.

    A worker loads it before it takes tasks. Where that raises, by what `admit` finds or for want of tilestream, the
    worker does not start, and neither does its nanny start another.

    Parameters
    ----------
    demands : Demands
        What they must have.
    """

    def __init__(self, demands: Demands) -> None:
        self.demands = demands

    def __reduce__(self) -> tuple[Any, ...]:
        return admit, (self.demands,)


def admit(demands: Demands) -> Handshake:
    """Return the plugin in a process that meets the demands.

    Parameters
    ----------
    demands : Demands
        Those of the run.

    Returns
    -------
    Handshake
        As it was sent.

    Raises
    ------
    ConfigError
        When it does not; said to the scheduler too, since few read the logs of workers.
    """
    found = demands.differences()
    if found:
        for worker in list(Worker._instances):
            error = _refusal(f"worker {worker.address}, which joined later,", found)
            worker.log_event(TOPIC, str(error))
            worker.nanny = None  # it waits for this start, and the worker, when it fails, would wait for its nanny
        raise _refusal("this worker", found)
    return Handshake(demands)


@contextmanager
def agreed(
    client: Client, *, stages: Iterable[str] = (), inputs: Iterable[str] = (), out: Place | None = None
) -> Iterator[None]:
    """Keep workers out that cannot do the work of the block, or would do other work.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster.
    stages : iterable of str
        Registered names, and `module:callable` of what the user brings.
    inputs : iterable of str
        Absolute paths and URLs.
    out : Place, optional
        Folder of the run's own, such as that of its receipts, which every worker must reach.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    ConfigError
        When a worker that is there now has another tilestream, Python or library, other code of a stage or none, or
        does not see an input or the folder of the outputs.
    """
    if str(client.scheduler_info()["address"]).startswith("inproc://"):
        yield
        return
    with _token(out) as token:
        demands = Demands.here(stages=stages, inputs=inputs, out=out, token=token)
        _require_now(client, demands)
        scheduler: Any = client.scheduler
        name = f"tilestream-{secrets.token_hex(8)}"
        client.subscribe_topic(TOPIC, _tell)
        client.register_plugin(Handshake(demands), name=name)
        try:
            yield
        finally:
            if client.status == "running":
                with suppress(OSError, TimeoutError, ValueError):  # a scheduler that is gone has forgotten it
                    client.sync(scheduler.unregister_worker_plugin, name=name, callback_timeout=LEAVE_S)
                client.unsubscribe_topic(TOPIC)


def _require_now(client: Client, demands: Demands) -> None:
    """Refuse a cluster with a process that does not meet the demands."""
    # Tasks are unpacked by the scheduler too.
    answers = {"the scheduler": _answer_of_scheduler(client, demands)}
    try:
        found_on = client.sync(client._run, look, demands, on_error="return", callback_timeout=ASK_S)
    except TimeoutError as error:
        raise ConfigError.of(
            "`--cluster`",
            got=f"a worker that does not answer within {ASK_S:g} s",
            expected="workers that have nothing else to do",
            do="End the workers that hang: the dashboard of the scheduler shows what they are at.",
        ) from error
    answers |= {f"worker {address}": found for address, found in found_on.items()}
    # A worker that died meanwhile does not answer: it is no longer one, and is asked again when it comes back.
    refused = {who: found for who, found in answers.items() if found and not isinstance(found, OSError)}
    if not refused:
        return
    who, found = next(iter(refused.items()))
    others = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
    raise _refusal(f"{who}{others}", found)


def _answer_of_scheduler(client: Client, demands: Demands) -> Any:
    try:
        return client.run_on_scheduler(look_at_versions, demands)
    except Exception as error:  # noqa: BLE001 - it comes from another process, which may have none of our code
        return error


def look(demands: Demands) -> tuple[Difference, ...]:
    """Return where this worker falls short of the demands."""
    return demands.differences()


def look_at_versions(demands: Demands) -> tuple[Difference, ...]:
    """Return where the packages of this process differ; a scheduler needs neither stages nor files."""
    return tuple(demands.differing_versions())


def _refusal(who: str, found: tuple[Difference, ...] | BaseException) -> ConfigError:
    if isinstance(found, BaseException):  # it could not even be asked
        return ConfigError.of(
            who,
            got=f"{type(found).__name__}: {found}",
            expected="a process that can load this version of tilestream",
            do="Install the same tilestream for all processes of a run, and restart them.",
        )
    first = found[0]
    return ConfigError.of(who, got=first.got, expected=first.expected, do=first.do)


def _tell(event: tuple[float, str]) -> None:
    logger.warning("%s", event[1])


@contextmanager
def _token(out: Place | None) -> Iterator[str]:
    """Yield the name of a file that lies in a folder for as long as the block runs."""
    if out is None:
        yield ""
        return
    with suppress(OSError):  # another run sweeps too
        for name in out.names(f"{TOKEN}*"):
            if time.time() - (out.modified_s(name) or time.time()) > STALE_S:
                out.remove(name)
    token = f"{TOKEN}{secrets.token_hex(16)}"
    out.put(token, token.encode())
    try:
        yield token
    finally:
        with suppress(OSError):  # the next run does it
            out.remove(token)
