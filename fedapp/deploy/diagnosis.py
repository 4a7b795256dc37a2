"""Why a SuperNode cannot connect, and what its operator can do about it."""

import socket
import ssl
from collections.abc import Iterable
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

from fedapp.flower.printed import NOT_ADMITTED, connection_error

__all__ = ["why_refused"]

TIMEOUT = 5.0  # seconds


def why_refused(address: str, authority: Path, printed: Iterable[str]) -> str:
    """What is wrong between here and the SuperLink at `address` (host:port), found by trying TLS with it.

    `printed`: what Flower's SuperNode printed before it ended.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    context = ssl.create_default_context(cafile=str(authority))
    try:
        with (
            socket.create_connection((host, int(port)), timeout=TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            pass
    except ssl.SSLCertVerificationError as error:
        return _certificate(error.verify_message, host)
    except ssl.SSLError as error:
        return f"{address} does not speak TLS as it should ({error.reason}); is it the SuperLink's port?"
    except OSError as error:
        if "https" in getproxies() and not proxy_bypass(host):
            return (
                f"{address} answers neither by the proxy in https_proxy nor directly ({error}); does the proxy let this"
                f" machine connect to port {port}? To go past it, name {host} in no_proxy"
            )
        return f"{address} does not answer ({error}); is the SuperLink running, and the port open to this machine?"
    lines = list(printed)
    if any(NOT_ADMITTED in line for line in lines):
        return (
            "the SuperLink does not admit this key: it was revoked, or renewed, or its .pub file is not in the"
            " SuperLink's keys/ folder; or a SuperNode with this key was killed less than a minute ago"
        )
    return connection_error(lines) or "the SuperLink can be reached; see the lines above"


def _certificate(fault: str, host: str) -> str:
    if "expired" in fault or "not yet valid" in fault:
        return (
            f"the SuperLink's {fault}: its operator renews it (provision --renew superlink); check the clock here, too"
        )
    if "match" in fault:
        return f"the SuperLink's certificate is not for {host}: add it by provision --renew superlink --host"
    return f"the SuperLink's certificate is not by this federation's authority ({fault}): is ca.crt the right one?"
