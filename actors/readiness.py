"""How a process says that it is ready: by the protocol of systemd's ``sd_notify``, which a devnet listens to as well.

Where the variable NOTIFY_SOCKET names a datagram socket, ``READY=1`` is sent there once; elsewhere nothing happens.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

VARIABLE = "NOTIFY_SOCKET"


def say_ready(environment: Mapping[str, str]) -> None:
    """Tells whoever started this process. A listener that is gone is no reason to stop."""
    address = environment.get(VARIABLE, "")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto(f"READY=1\nMAINPID={os.getpid()}".encode(), name)
        except OSError:
            return


class ReadinessListener(asyncio.DatagramProtocol):
    """Calls ``on_ready`` with the process id of each process that is ready."""

    def __init__(self, on_ready: Callable[[int], None]) -> None:
        self._on_ready = on_ready

    @classmethod
    async def open(cls, path: Path, on_ready: Callable[[int], None]) -> asyncio.DatagramTransport:
        """Listens at ``path``, which must be short (a socket's path has at most 107 bytes) and new."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listening.setblocking(False)  # noqa: FBT003  the only way to say it
        listening.bind(str(path))
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: cls(on_ready), sock=listening)
        return transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        fields = dict(line.partition("=")[::2] for line in data.decode("utf-8", "replace").split("\n"))
        if fields.get("READY") == "1" and fields.get("MAINPID", "").isdecimal():
            self._on_ready(int(fields["MAINPID"]))
