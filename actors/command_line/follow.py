"""Following one job from state to state."""

import asyncio
from typing import Final

import msgspec
from msgspec import Struct

from actors.command_line.network import Line
from actors.command_line.output import Output
from actors.command_line.sentences import happened
from actors.matching import Waiting, why_waiting
from bus.port import LiveListener
from events.canonical import UNREADABLE
from events.errors import BusError, NotFound, TimedOut
from schemas import queries
from schemas.messages import Progress
from schemas.state import UNFINISHED, Job, Open, Settled

LOOK_S: Final = 0.1
# A job that has waited this long for a miner is worth an explanation.
WAIT_BEFORE_WHY_S: Final = 2.0


class Ending(Struct, frozen=True):
    """A job that has ended; ``receipt`` when it is settled."""

    id: str
    job: Job
    receipt: queries.ReceiptAnswer | None


async def follow(line: Line, output: Output, job_id: str, for_seconds: int | None = None) -> Ending:
    """Tells every step as it becomes final, until the end. A network that is away is waited for.

    Raises NotFound when there is no such job, TimedOut after ``for_seconds``.
    """
    listener = line.bus.listen_live("*", "progress")
    told = asyncio.create_task(_tell_progress(listener, output, job_id))
    try:
        async with asyncio.timeout(for_seconds):
            job = await _until_ended(line, output, job_id)
    except TimeoutError as error:
        raise TimedOut(
            "the job goes on",
            why=f"it has not ended within {for_seconds} s",
            hint=f"Follow it again with `assay job watch {job_id}`.",
            job=job_id,
        ) from error
    finally:
        told.cancel()
        await asyncio.gather(told, return_exceptions=True)
        await listener.close()
    if not isinstance(job.situation, Settled):
        return Ending(job_id, job, None)
    question = queries.JobQuestion(job=job_id, min_height=job.situation.ended_height)
    return Ending(job_id, job, await line.ask("receipt", question, queries.ReceiptAnswer))


async def _until_ended(line: Line, output: Output, job_id: str) -> Job:
    loop = asyncio.get_running_loop()
    seen = 0
    changed = loop.time()
    explained: Waiting | None = None
    known = False
    while True:
        try:
            found = await line.ask("job", queries.JobQuestion(job=job_id), queries.JobAnswer)
        except (BusError, TimedOut) as error:
            output.note(f"waiting for the network: {error}")
            await asyncio.sleep(1)
            continue
        except NotFound:
            if known:  # a node that is behind answered
                await asyncio.sleep(LOOK_S)
                continue
            raise
        known = True
        for entry in found.history[seen:]:
            changed = loop.time()
            output.event({"job": job_id, "entry": entry}, f"height {entry.height:>6}  {happened(entry)}")
        seen = max(seen, len(found.history))
        if not isinstance(found.job.situation, UNFINISHED):
            return found.job
        if isinstance(found.job.situation, Open) and loop.time() - changed > WAIT_BEFORE_WHY_S:
            explained = await _explain(line, output, found, explained)
        await asyncio.sleep(LOOK_S)


async def _explain(line: Line, output: Output, found: queries.JobAnswer, before: Waiting | None) -> Waiting:
    from actors.command_line.ledger import all_miners

    miners = {entry.address: entry.miner for entry in await all_miners(line)}
    waiting = why_waiting(found.job, miners, (await line.genesis()).parameters.trust)
    if waiting != before:
        value = {"job": found.id, "code": waiting.code, "sentence": waiting.sentence}
        output.event(value, f"waiting: {waiting.code}: {waiting.sentence}")
    return waiting


async def _tell_progress(listener: LiveListener, output: Output, job_id: str) -> None:
    """Passes on what the miner says about its work, each stage at its quarters."""
    said: tuple[str, int] = ("", 0)
    async for message in listener:
        try:
            progress = msgspec.json.decode(message.data, type=Progress)
        except UNREADABLE:
            continue
        step = (progress.stage, progress.done_bps // 2_500)
        if progress.job == job_id and step != said:
            said = step
            output.event(progress, f"  miner: {progress.stage} {progress.done_bps // 100} %")
