"""How much of this machine others used during a run: what they take, the measured server lacks."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from urllib.parse import urlsplit

import psutil

from benchmarks.machine_time import MachineTime

MOST_SHARE = 0.05  # of the machine; beyond it figures are read with care
MAX_NOISY_BLOCKS = 0.2  # with more of those compared beyond that, nothing is said about targets


def read_use(url: str) -> MachineTime | None:
    """Processor time until now, that of this process, the server at `url` and whatever they started as known.

    None where that server runs here and its processes cannot be told from others'.
    """
    roots = [psutil.Process()]
    address = urlsplit(url)
    if _is_here(address.hostname or ""):
        servers = _listening_at(address.port or 80)
        if not servers:
            return None
        roots += servers
    return MachineTime.read(time.monotonic(), {pid for root in roots for pid in _with_descendants(root)})


def _with_descendants(process: psutil.Process) -> list[int]:
    with contextlib.suppress(psutil.Error):
        return [process.pid, *(child.pid for child in process.children(recursive=True))]
    return []


def _listening_at(port: int) -> list[psutil.Process]:
    found = []
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            at_port = bool(connection.laddr) and connection.laddr.port == port
            if at_port and connection.status == psutil.CONN_LISTEN and connection.pid is not None:
                with contextlib.suppress(psutil.Error):
                    found.append(psutil.Process(connection.pid))
    return found


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except (OSError, ValueError):
        return False
