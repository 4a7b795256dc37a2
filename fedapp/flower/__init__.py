"""Everything that leans on Flower's internals, one module for each. Written for flwr 1.41 and 1.42.

tests/flower/ checks every name, signature and text used here against the installed version. Where one is gone, the
module falls back, if it can, and logs one warning. The public API (flwr.app, flwr.clientapp, flwr.serverapp,
flwr_datasets.partitioner) is imported where it is used.
"""
