"""This machine's own addresses are never reached through a proxy, whatever the environment says of others."""

from collections.abc import Mapping

__all__ = ["past_proxies"]

OWN = ("localhost", "127.0.0.1", "::1")
NAMES = ("no_proxy", "NO_PROXY")  # programs read either


def past_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment`, with this machine's own addresses among those that no proxy serves. Proxies for others stay."""
    known = next((value for name in NAMES if (value := environment.get(name))), "")
    listed = [item.strip() for item in known.split(",") if item.strip()]
    line = ",".join([*listed, *(address for address in OWN if address not in listed)])
    return {**environment, **dict.fromkeys(NAMES, line)}
