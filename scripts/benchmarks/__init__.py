"""Benchmarks, each a module with `run(options) -> Result`; scripts/bench.py is the command."""
