"""A federation's status in Prometheus's text format, version 0.0.4."""

import math
from collections.abc import Mapping, Sequence

from fedapp.deploy.federation_status import Status

__all__ = ["prometheus"]


def prometheus(status: Status, level: int) -> str:
    """`level`: the exit status. Names of sites are label values, escaped as the format asks for; with the client's
    number beside it no two sites have the same labels, which would make the whole text invalid."""
    lines: list[str] = []

    def gauge(name: str, about: str, values: Sequence[tuple[Mapping[str, str], float | None]]) -> None:
        known = [(labels, value) for labels, value in values if value is not None and not math.isnan(value)]
        if known:
            lines.extend([f"# HELP fedapp_{name} {about}", f"# TYPE fedapp_{name} gauge"])
            lines.extend(f"fedapp_{name}{_labels(labels)} {_value(value)}" for labels, value in known)

    gauge("status", "0 ok, 1 warning, 2 critical.", [({}, float(level))])
    gauge("superlink_up", "Whether the SuperLink answers.", [({}, float(status.answers))])
    gauge("certificate_end_seconds", "Unix time at which the certificate ends.", [({}, status.certificate_ends)])
    sites = [
        ({"site": site.name, "client": "" if site.client is None else str(site.client)}, site) for site in status.sites
    ]
    gauge("site_connected", "Whether a site is connected.", [(at, float(site.connected)) for at, site in sites])
    gauge("site_connected_since_seconds", "Unix time of connecting.", [(at, site.since) for at, site in sites])
    gauge("site_last_round", "The last round with a good reply.", [(at, site.last_round) for at, site in sites])
    gauge("site_rejected", "Rejected replies of the run.", [(at, site.rejected) for at, site in sites])
    gauge("site_epsilon", "Privacy spent.", [(at, site.epsilon) for at, site in sites])
    if status.run is not None:
        gauge("run_round", "Rounds done in the run.", [({}, status.run["round"])])
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items()) + "}" if labels else ""


def _value(value: float) -> str:
    return ("+Inf" if value > 0 else "-Inf") if math.isinf(value) else repr(float(value))
