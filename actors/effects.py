"""The tasks of a running actor: the endless ones, and the effects that its decisions start."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import structlog

from actors import telemetry
from actors.clock import backoff_ms
from actors.decision import EffectFailed, Later, Start
from bus.port import Clock
from events.errors import AssayError, BusError, Divergence, SequenceGap, TimedOut, WrongNetwork

STOP_WITHIN_MS = 1_500
CALM_AFTER_MS = 60_000

log = structlog.get_logger()
Put = Callable[[object, str], Awaitable[None]]


class Tasks:
    """Tasks that end together. The first that fails is ``failure``, and ``failed`` is called."""

    def __init__(self, clock: Clock, failed: Callable[[], None]) -> None:
        self.failure: BaseException | None = None
        self._clock = clock
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, name: str, run: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs it beside the others."""
        task = asyncio.create_task(run, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = self.failure or error
            self._failed()

    async def keep_up(self, run: Callable[[], Awaitable[None]]) -> None:
        """Runs something endless, and again with growing delays when the bus fails it."""
        attempt = 0
        while True:
            began_ms = self._clock.now_ms()
            try:
                await run()
                return
            except (WrongNetwork, SequenceGap):
                raise
            except (BusError, TimedOut) as error:
                attempt = 0 if self._clock.now_ms() - began_ms > CALM_AFTER_MS else attempt + 1
                log.warning("the bus failed", error=str(error), attempt=attempt)
            await self._clock.sleep_ms(backoff_ms(attempt))

    async def end(self) -> None:
        """Cancels all and waits a while for them."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=STOP_WITHIN_MS / 1_000)
            for task in late:
                log.error("does not stop", task=task.get_name())


class Effects:
    """Runs effects by name, one of a name at a time; ``put`` brings their results to the mailbox."""

    def __init__(self, tasks: Tasks, clock: Clock, put: Put) -> None:
        self._tasks = tasks
        self._clock = clock
        self._put = put
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self, effect: Start, about: str) -> None:
        """Starts it unless one of its name runs."""
        if effect.name not in self._running:
            task = self._tasks.spawn(effect.name, self._perform(effect, effect.about or about))
            self._running[effect.name] = task
            task.add_done_callback(partial(self._free, effect.name))

    def cancel(self, name: str) -> None:
        """Cancels it if it runs. Its clean-up may still be under way when one of the same name is started."""
        if (task := self._running.pop(name, None)) is not None:
            task.cancel()

    def later(self, later: Later, about: str) -> None:
        """Delivers a message after a while."""
        self._tasks.spawn("later", self._deliver(later, about))

    def _free(self, name: str, task: asyncio.Task[None] | None) -> None:
        if self._running.get(name) is task:
            del self._running[name]

    async def _perform(self, effect: Start, about: str) -> None:
        result = await self._result(effect, about)
        # The name is free before the result is decided, which may start the next effect of this name.
        self._free(effect.name, asyncio.current_task())
        if result is not None:
            await self._put(result, about)

    async def _result(self, effect: Start, about: str) -> object:
        attempt = 0
        while True:
            try:
                return await self._try(effect, about)
            except (BusError, TimedOut) as error:
                attempt += 1
                log.warning("effect failed", effect=effect.name, attempt=attempt, error=str(error))
                if attempt >= effect.tries:
                    return EffectFailed(effect.name, error)
            except Divergence:
                raise
            except AssayError as error:
                log.warning("effect failed", effect=effect.name, error=str(error))
                return EffectFailed(effect.name, error)
            await self._clock.sleep_ms(backoff_ms(attempt))

    async def _try(self, effect: Start, about: str) -> object:
        kind = effect.name.partition("/")[0]
        with telemetry.tracer.start_as_current_span(f"effect {kind}", context=telemetry.context_about(about)):
            return await effect.run()

    async def _deliver(self, later: Later, about: str) -> None:
        await self._clock.sleep_ms(later.delay_ms)
        await self._put(later.message, about)
