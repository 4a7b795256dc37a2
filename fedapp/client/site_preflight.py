"""What a SuperNode says before the first round: its clients' counts, faults and figures."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedapp.client.site import Site
from fedapp.common.code_digest import code_digest, code_path
from fedapp.common.errors import FedappError, told
from fedapp.data.shards import moments
from fedapp.wire.preflight import MOMENTS, PreflightReport

__all__ = ["preflight_of"]


def preflight_of(site: Site, clients: Sequence[int]) -> PreflightReport:
    """Of the clients that are hosted here, how many training examples each has, and what is wrong with its data.

    Raises FedappError for what is wrong with a simulation's data as a whole.
    """
    if site.shards.is_pooled:
        site.shards.load()
    agreements = site.task.agreements
    counts, faults, rows = list[int](), list[str](), list[tuple[Tensor, ...]]()
    digests = list[str]()
    for client in clients:
        try:
            train, fault = site.shards.of(client).train, ""
            site.protection.check_work(len(train))
            if site.own is not None:
                site.own.check_work(len(train))
            site.parts.check_enough(len(train))
            found = moments(torch.cat([a.values(train) for a in agreements], 1)) if agreements else None
        except FedappError as error:
            site.protection.log_fault(client, error)
            train, fault, found = None, told(error, site.on_device), None
        counts.append(0 if train is None else len(train))
        faults.append(fault)
        digests.append("" if train is None or site.on_device else site.shards.of(client).sha256())
        zeros = torch.zeros(sum(agreement.width for agreement in agreements))
        rows.append((zeros,) * 3 if found is None else (found.count, found.mean, found.squares))
    columns: Mapping[str, Tensor] = {}
    if agreements and rows:
        columns = {name: torch.stack([row[i].double() for row in rows]) for i, name in enumerate(MOMENTS)}
    return site.protection.preflight(
        PreflightReport(
            code_digest(),
            "" if site.on_device else code_path(),
            tuple(clients),
            tuple(counts),
            tuple(faults),
            moments=columns,
            backbone=site.backbone,
            data=() if site.on_device else tuple(digests),
        )
    )
