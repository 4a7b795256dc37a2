"""Undocumented settings of Flower's programs (flwr 1.41, 1.42).

Where Flower no longer knows one, it ignores an environment variable, and keeps its database in a file of that name.
"""

__all__ = ["IN_MEMORY", "TASK_POLL_INTERVAL"]

TASK_POLL_INTERVAL = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"  # environment: seconds between looks for a task; 1 by default
IN_MEMORY = ":flwr-in-memory:"  # the SuperLink's --database, for one that ends with the process
