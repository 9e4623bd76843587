"""An event loop without real time: when nothing is ready, the clock jumps to the next timer.

Every callback belongs to a `Process` (or to nobody: the simulation itself). A process that is paused does not run
until it is resumed, one that is killed never again: not even its `finally` clauses, as with SIGSTOP and SIGKILL.
Callbacks run in the order in which they became ready; timers that are due at the same moment in an order of the seed.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any

EPOCH_MS = 1_750_000_000_000


class Process:
    """What is paused, killed and found in the trace as one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.paused = False
        self.dead = False
        self.held: list[tuple[Process | None, asyncio.Handle]] = []
        self.context = copy_context()
        self.context.run(CURRENT.set, self)


CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is set: what the simulation waits for can never happen."""


class VirtualLoop(asyncio.AbstractEventLoop):
    """Runs one simulation. ``failures`` are what callbacks and forgotten tasks raised."""

    def __init__(self, random: Random) -> None:
        self.failures: list[dict[str, Any]] = []
        self.steps = 0
        self._held: list[tuple[Process | None, asyncio.Handle]] = []
        self._random = random
        self._time = 0.0
        self._ready: deque[tuple[Process | None, asyncio.Handle]] = deque()
        self._timers: list[tuple[float, float, int, Process | None, asyncio.TimerHandle]] = []
        self._count = 0
        self._running = False
        self._closed = False
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def time(self) -> float:
        return self._time

    def now_ms(self) -> int:
        """The true time, in milliseconds since 1970."""
        return EPOCH_MS + int(self._time * 1_000 + 1e-6)

    # What asyncio needs of a loop.

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:
        context = copy_context() if context is None else context
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append((context.get(CURRENT), handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._time + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        context = copy_context() if context is None else context
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._random.random(), self._count, context.get(CURRENT), timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is thrown away when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name or "task", context=context)
        self._tasks[task] = None
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """There are no threads: it runs now, and its result is there in the next round."""
        future = self.create_future()
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to who awaits it
            self.call_soon(resolve, future, None, error)
        else:
            self.call_soon(resolve, future, result, None)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        self._ready.clear()
        self._timers.clear()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failures.append(context)

    # Running.

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Runs until ``main`` ends."""
        self._running = True
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(main, name="main")
            while not task.done():
                self._turn()
            return task.result()
        finally:
            asyncio._set_running_loop(None)
            self._running = False

    def _turn(self) -> None:
        """What is ready now, once."""
        if not self._ready:
            self._advance()
        for _ in range(len(self._ready)):
            process, handle = self._ready.popleft()
            if handle.cancelled():
                continue
            if process is not None and (process.dead or process.paused):
                (self._held if process.dead else process.held).append((process, handle))
                continue
            self.steps += 1
            handle._run()

    def _advance(self) -> None:
        """To the moment of the next timer."""
        while self._timers and self._timers[0][4].cancelled():
            heapq.heappop(self._timers)
        if not self._timers:
            raise Deadlock("nothing is ready, and nothing ever will be")
        self._time = max(self._time, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._time:
            _, _, _, process, timer = heapq.heappop(self._timers)
            self._ready.append((process, timer))

    # Processes.

    def spawn(self, process: Process, run: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Starts something within a process."""
        return process.context.run(self.create_task, run, name=process.name, context=process.context.copy())

    def pause(self, process: Process) -> None:
        """SIGSTOP."""
        process.paused = True

    def resume(self, process: Process) -> None:
        """SIGCONT: all that has become ready meanwhile runs now."""
        process.paused = False
        if not process.dead:
            self._ready.extend(process.held)
            process.held.clear()

    def kill(self, process: Process) -> None:
        """SIGKILL."""
        process.dead = True
        self._held += process.held

    def bury(self) -> None:
        """Ends every task that is left, dead or alive, without letting it do more than clean up."""
        asyncio._set_running_loop(self)
        try:
            self._timers.clear()
            self._ready.extend(self._held)  # a task whose next step is held cannot be cancelled without it
            for _ in range(100):
                left = [task for task in self._tasks if not task.done()]
                if not left:
                    return
                for task in left:
                    task.cancel()
                self._drain(20_000)
            raise AssertionError(f"{len(left)} tasks do not end: {left[0]}")
        finally:
            asyncio._set_running_loop(None)

    def _drain(self, most: int) -> None:
        while self._ready and most > 0:
            most -= 1
            _, handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()


def resolve(future: asyncio.Future[Any] | None, result: Any, error: BaseException | None) -> None:
    """Ends a future unless somebody has, or nobody waits for it."""
    if future is None or future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


class VirtualClock:
    """`bus.port.Clock` of one host. ``offset_ms`` is how wrong it is; it may be changed at any time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.offset_ms = 0
        self._loop = loop

    def now_ms(self) -> int:
        return self._loop.now_ms() + self.offset_ms

    async def sleep_ms(self, duration_ms: int) -> None:
        await asyncio.sleep(max(duration_ms, 0) / 1_000)
