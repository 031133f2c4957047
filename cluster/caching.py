"""Caches on the workers of a cluster: given to all of them, told on the dashboard, shared out on each machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from distributed import Client, Worker, WorkerPlugin
from tornado.ioloop import PeriodicCallback

from tilestream.cache.diskfolder import claim_folder
from tilestream.cache.stack import CacheConfig, use_caches, use_peers
from tilestream.cache.tally import TIERS, totals
from tilestream.cluster.peers import ASK, OFFER, Peers, answer_ranges, take_ranges
from tilestream.errors import ConfigError

NAME = "tilestream-caches"
"""Name of the plugin: another one of that name takes its place."""
MEMBERS_S = 10.0
"""How often a worker asks who else is there."""
LOOK_S = 3.0
"""How long the scheduler may take to answer that."""
MEMBERS_EACH_S = 0.02
"""Added to that for each member, so that a large cluster does not keep its scheduler busy with it."""

_logger = logging.getLogger(__name__)


class CachePlugin(WorkerPlugin):
    """Gives each worker of a cluster its caches, its peers, and columns on the dashboard.

    Parameters
    ----------
    config : CacheConfig
        What caches may take.

    Notes
    -----
    `Worker.metrics` is how a worker tells figures of its own: they travel with its heartbeat, and the page "Workers" of
    the dashboard shows each as a column.
    """

    name = NAME

    def __init__(self, config: CacheConfig) -> None:
        self.config = config
        self._looking: PeriodicCallback | None = None

    async def setup(self, worker: Worker) -> None:
        """Begin on a worker."""
        try:
            use_caches(self.config)
        except ConfigError as error:  # of a worker that joins late: the others have been asked before the run began
            _logger.warning("no disk cache on %s: %s", worker.address, error)
            use_caches(replace(self.config, disk=None))
        self._worker, self._peers = worker, Peers(worker)
        worker.handlers[ASK], worker.handlers[OFFER] = answer_ranges, take_ranges
        use_peers(self._peers if self.config.peers else None)
        for tier in TIERS:
            worker.metrics[f"cache {tier}"] = partial(_figures, tier)
        await self._look()
        self._looking = PeriodicCallback(self._look, 1000 * MEMBERS_S, jitter=0.5)
        self._looking.start()

    def teardown(self, worker: Worker) -> None:
        """End on a worker; what is kept in memory stays for a next run in this process."""
        if self._looking is not None:
            self._looking.stop()
        use_peers(None)
        for tier in TIERS:
            worker.metrics.pop(f"cache {tier}", None)
        for call in (ASK, OFFER):
            worker.handlers.pop(call, None)
        use_caches(None)

    async def _look(self) -> None:
        try:
            members = await asyncio.wait_for(self._worker.scheduler.ncores(), LOOK_S)
        except Exception as error:  # noqa: BLE001 - the next look may succeed; until then the members of before count
            _logger.debug("the scheduler does not say who is there: %r", error)
            return
        self._peers.members(list(members))
        if self._looking is not None:
            self._looking.callback_time = 1000 * (MEMBERS_S + MEMBERS_EACH_S * len(members))


def install_caches(client: Client, config: CacheConfig) -> None:
    """Give the workers of a cluster, those that join later too, the caches of a configuration.

    Parameters
    ----------
    client : distributed.Client
        The cluster. A user's own keeps them, so that a later run on it finds what this one has left.
    config : CacheConfig
        What caches may take.

    Raises
    ------
    ConfigError
        When the folder of the disk tier cannot be used on one of the workers.
    """
    if config.disk is not None:
        client.run(claim_folder, Path(config.disk))
    client.register_plugin(CachePlugin(config), name=NAME)


def _figures(tier: str, _: Worker) -> str:
    done: Mapping[str, int] = totals().get(tier, {})
    asked = done.get("hits", 0) + done.get("misses", 0)
    return f"{done['hits']:,} of {asked:,}, {done['bytes'] / 1e6:,.0f} MB" if asked else "–"
