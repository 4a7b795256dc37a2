"""The engine of `scripts/run.py`: server and clients on this machine, without a SuperLink and without Ray.

The server's rounds run in the program itself. A *zygote*, forked from it once everything is imported, forks for each
run a *parent*, which makes model and task from the config and maps the data that the program has prepared; the parent
forks the workers, so that code and data are pages that all share. Messages go as Flower's records through anonymous
memory (`memfd_create`), with a line of JSON on a socket to announce each; nothing is pickled.
"""
