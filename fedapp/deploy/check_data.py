"""Whether a site's own data fits a task, by the code that answers the server's preflight."""

from collections.abc import Mapping

from fedapp.client.build import build_site
from fedapp.client.party.party_run import hosted_parties, party_run
from fedapp.client.site_preflight import preflight_of
from fedapp.common.errors import DataError
from fedapp.config import compose, split_overrides
from fedapp.data.shards import hosted_clients, local_data_path
from fedapp.privacy.limits import own_limits

__all__ = ["check_site"]


def check_site(node_config: Mapping[str, bool | int | float | str], task: str) -> str:
    """What was found, in words for the operator. Raises FedappError, naming file, column and row, for what is wrong."""
    limits, path = own_limits(node_config), local_data_path(node_config)
    config = compose(split_overrides(task))
    if config.task.by_columns:
        return _check_parties(node_config, task)
    site = build_site(config, path, limits)
    clients = hosted_clients(node_config, 0, config.federation.num_clients)
    site.shards.load()  # says what is wrong, which under differential privacy a preflight report hides
    report = preflight_of(site, clients)
    for client, count, fault in zip(report.clients, report.num_examples, report.faults, strict=True):
        if fault or not count:
            raise DataError(f"{path or f'client {client}'}: {fault or 'no training example'}")
    counted = sum(len(site.shards.of(client).train) for client in clients)
    return f"data checked: {counted} training examples fit the task"


def _check_parties(node_config: Mapping[str, bool | int | float | str], task: str) -> str:
    run = party_run(task, node_config)
    names = hosted_parties(node_config, 0, run.options.names)
    tables = [run.table(name) for name in names]
    said = [f"{len(table)} rows with {len(table.features)} columns of party {table.name}" for table in tables]
    return f"data checked: {', '.join(said)} fit the task"
