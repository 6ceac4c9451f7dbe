"""Two Ray nodes on the loopback interface, until standard input ends: ``python -m tests.torture.ray_nodes CACHE``.

Prints the address and the process id of the second node. That has CACHE as its cache of models.
"""

from __future__ import annotations

import os
import sys

from ray.cluster_utils import Cluster

if __name__ == "__main__":
    cluster = Cluster()
    node = {"node_ip_address": "127.0.0.1", "num_cpus": 1, "object_store_memory": 80_000_000}
    cluster.add_node(**node, include_dashboard=False)
    os.environ["SEARCHENGINE_CACHE_DIR"] = sys.argv[1]
    second = cluster.add_node(**node)
    print(cluster.address, second.all_processes["raylet"][0].process.pid, flush=True)
    sys.stdin.read()
    cluster.shutdown()
