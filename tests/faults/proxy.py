"""A TCP proxy on loopback that can be cut: as a network drops packets, or as it breaks connections."""

import asyncio
from typing import Self


class _End(asyncio.Protocol):
    """One end of a forwarded connection."""

    def __init__(self, line: "Line") -> None:
        self._line = line
        self.transport: asyncio.Transport
        self.peer: _End | None = None
        self._early: list[bytes] = []
        self._full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._line.ends.add(self)

    def data_received(self, data: bytes) -> None:
        if self.peer is None:
            self._early.append(data)
        else:
            self.peer.transport.write(data)

    def meet(self, peer: "_End") -> None:
        """From now on what one receives the other sends."""
        self.peer, peer.peer = peer, self
        for end in (self, peer):
            for data in end._early:
                end.peer.transport.write(data)
            end._early.clear()

    def pause_writing(self) -> None:
        self._full = True
        if self.peer is not None:
            self.peer.let_read()

    def resume_writing(self) -> None:
        self._full = False
        if self.peer is not None:
            self.peer.let_read()

    def let_read(self) -> None:
        """Reads on unless the line is dark or the other end has no room."""
        if self.transport.is_closing():
            return
        if self._line.dark or (self.peer is not None and self.peer._full):
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._line.ends.discard(self)
        if self.peer is not None and not self._line.dark:
            self.peer.transport.close()


class Line:
    """Forwards connections to ``target`` on loopback. ``async with``; ``port`` is where it listens."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._opening: set[asyncio.Task[None]] = set()
        self.ends: set[_End] = set()
        self.port = 0
        self.dark = False
        self._broken = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        # Until Python 3.12 asyncio leaves a connection open that was accepted, and not yet told of, at this moment.
        self._broken = True
        await asyncio.sleep(0.02)
        if self._server is not None:
            self._server.close()
        opening = tuple(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        while self.ends:
            for end in tuple(self.ends):
                end.transport.abort()
            await asyncio.sleep(0)

    def _accept(self) -> _End:
        end = _End(self)
        task = asyncio.get_running_loop().create_task(self._connect(end))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return end

    async def _connect(self, near: _End) -> None:
        await asyncio.sleep(0)  # until the near end is connected
        if self._broken:
            near.transport.abort()
            return
        if self.dark:
            near.transport.pause_reading()  # nobody answers; it is hung up on when there is light again
            return
        try:
            _, far = await asyncio.get_running_loop().create_connection(lambda: _End(self), "127.0.0.1", self._target)
        except OSError:
            near.transport.abort()
            return
        near.meet(far)
        near.let_read()
        far.let_read()

    def darken(self) -> None:
        """Nothing passes, in neither direction; nobody is told."""
        self.dark = True
        for end in tuple(self.ends):
            end.let_read()

    def break_off(self) -> None:
        """All connections are reset, and so are new ones."""
        self._broken = True
        for end in tuple(self.ends):
            end.transport.abort()

    def mend(self) -> None:
        """What was held up arrives, as a retransmission would; whoever connected in the dark has to try again."""
        self.dark = self._broken = False
        for end in tuple(self.ends):
            if end.peer is None or end.peer.transport.is_closing():
                end.transport.abort()
            else:
                end.let_read()
