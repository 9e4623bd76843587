"""The bounded mailbox of an actor: whoever puts waits for room, so a flood stops at its source."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Mailbox(Generic[Item]):
    """First in, first out, within one event loop."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[Item] = deque()
        self._closed = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    async def put(self, item: Item) -> bool:
        """Waits for room. False, and the item is dropped, when the mailbox is closed."""
        while len(self._items) >= self._capacity and not self._closed:
            self._writable.clear()
            await self._writable.wait()
        if self._closed:
            return False
        self._items.append(item)
        self._readable.set()
        return True

    async def take(self, limit: int) -> list[Item]:
        """Waits for at least one item and takes up to ``limit``; none when the mailbox is closed."""
        while not self._items and not self._closed:
            self._readable.clear()
            await self._readable.wait()
        if self._closed:
            return []
        taken = [self._items.popleft() for _ in range(min(limit, len(self._items)))]
        self._writable.set()
        return taken

    def close(self) -> None:
        """Lets everybody who waits go; what is still inside is not delivered."""
        self._closed = True
        self._readable.set()
        self._writable.set()
