"""Work on many machines: a pool whose workers are those of a Dask scheduler.

`pool` hands the work out, `workers` knows who may get it, `scheduler` is the connection, `packing`
sends large arrays once, `on_worker` is what runs there. `here` starts a cluster on this machine,
and `bench` times one.
"""

from taskdisc.cluster.pool import Cluster, pool_for

__all__ = ["Cluster", "pool_for"]
