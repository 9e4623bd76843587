"""``assay verify exam``: the verdicts on the miners of an exam, repeated by whoever wants to know."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from cyclopts import Parameter
from msgspec import Raw, Struct, UnsetType

from actors.command_line.amounts import check_address, check_digest
from actors.command_line.blobs import Blobs, Wanted, blobs_in, hold_digest
from actors.command_line.checks import SHOW_OTHERS, Checks
from actors.command_line.log_blocks import each_block, no_genesis
from actors.command_line.miner_lists import lists_file
from actors.command_line.options import DISPLAY, NETWORK, Display, Network
from actors.command_line.output import Output
from actors.command_line.sentences import short
from actors.command_line.verify import GenesisFile, load_genesis, read_record, with_list
from events.errors import NotFound
from schemas.attestation import ExamOpening, ExamVerdict
from schemas.state import Examination

if TYPE_CHECKING:
    from actors.attestation.lists import Lists
    from actors.command_line.exam_record import ExamRecord, Judged

GPU_FIELDS: Final = ("result", "device", "expected", "memory_mib", "hardware")
# What the lists decide.
BY_LISTS: Final = ("driver", "device", "expected")


class Compared(Struct, frozen=True, kw_only=True):
    """A verdict of the log, by whom and in which block, beside the same one repeated."""

    coordinator: str
    height: int
    on_record: ExamVerdict
    repeated: ExamVerdict


async def verify_exam(
    exam: Annotated[str, Parameter(help="The id of an exam: that of the event that opened it.")],
    /,
    *,
    log: Annotated[Path | None, Parameter(help="An exported log; else the network's. All of it is executed.")] = None,
    blobs: Blobs = None,
    miner: Annotated[str | None, Parameter(help="Only the verdict on this miner.")] = None,
    lists: Annotated[
        Path | None, Parameter(help="The coordinator's lists as a file; else those of Assay and of this host.")
    ] = None,
    genesis: GenesisFile = None,
    network: Network = NETWORK,
    display: Display = DISPLAY,
) -> None:
    """Repeat the verdicts of an exam: compute the rows that each GPU had to open again, look its card up, and compare
    every field with what the log says. Offline with --log and --blobs; what is not given comes from the network."""
    from actors.command_line.exam_record import ExamRecord

    check_digest(exam, "the id of an exam", "`assay miner explain ADDRESS` shows that of a miner's last exam.")
    if miner is not None:
        check_address(miner)
    output = Output(display)
    known = load_genesis(genesis)
    if log is None and known is None:
        raise no_genesis()
    candidates = _lists(lists)
    record, _ = await each_block(log, network, known, output, partial(ExamRecord, exam))
    chosen = choose(record, exam, miner)
    wanted = [pair for judged in chosen for pair in _wanted(judged)]
    async with blobs_in(blobs, wanted, network, output) as directory:
        _must_have(chosen, directory, ours=blobs is not None)
        compared = await _repeat(record, chosen, directory, candidates)
        checks = Checks()
        about: dict[str, object] = {"exam": exam, "verdicts": compared}
        words: dict[str, object] = {"exam": exam}
        words.update((short(each.on_record.miner), _lines(each)) for each in compared)

        def run() -> None:
            for _, name in dict.fromkeys(wanted):
                if (directory / name).is_file():
                    hold_digest(checks, directory / name)
            for judged, each in zip(chosen, compared, strict=True):
                _compare(checks, judged, each)
            if miner is None:
                for unjudged in sorted(set(record.miners) - {each.on_record.miner for each in compared}):
                    checks.skip(f"{short(unjudged)} was judged rightly", "the log has no verdict on it")

        with_list(checks, output, about, run, words=words)


def choose(record: "ExamRecord", exam: str, miner: str | None) -> list["Judged"]:
    """The verdicts to be repeated, at least one. Raises NotFound."""
    if not record.miners:
        raise NotFound(
            f"the log has no exam {exam}",
            hint="`assay miner explain ADDRESS` names a miner's last exam; an older log lacks it.",
        )
    if miner is not None and miner not in record.miners:
        raise NotFound(
            f"{miner} is not in this exam",
            why=f"it is that of {', '.join(record.miners[:5])}" + (" and others" if record.miners[5:] else ""),
            hint="Name one of its miners, or none.",
        )
    chosen = [judged for judged in record.judged if miner in (None, judged.verdict.miner)]
    if not chosen:
        raise NotFound("there is no verdict to repeat", why="nobody has judged it yet", hint="Try again later.")
    return chosen


def _lists(file: Path | None) -> tuple["Lists", ...]:
    """Those that a verdict may have been made with. Raises BadInput, NotAllowed, VerificationFailed."""
    from actors.attestation.lists import Lists, SignedLists, load, shipped

    if file is None:
        return (shipped(), load(lists_file()))
    # Who has signed them is no matter: a verdict states the digest of its lists.
    signed = "body" in read_record(file, dict[str, Raw])
    return (read_record(file, SignedLists).body if signed else read_record(file, Lists),)


def _examination(judged: "Judged") -> Examination:
    found = judged.attestation.examination
    if not isinstance(found, Examination):
        raise AssertionError(f"{judged.verdict.miner} was judged and is in no exam")
    return found


def _results(judged: "Judged") -> dict[str, str]:
    return {gpu.gpu: gpu.result for gpu in judged.verdict.gpus}


def _openings(judged: "Judged") -> tuple[ExamOpening, ...]:
    """Those that the coordinator had. Whether the others were there in time does not follow from the log."""
    openings = _examination(judged).openings
    if isinstance(openings, UnsetType):
        return ()
    results = _results(judged)
    return tuple(opening for opening in openings if results[opening.gpu] != "absent")


def _wanted(judged: "Judged") -> list[Wanted]:
    miner, names = judged.verdict.miner, []
    for opening in _openings(judged):
        names += [opening.rows] if isinstance(opening.fill, UnsetType) else [opening.rows, opening.fill]
    return [(miner, name) for name in names]


def _must_have(chosen: list["Judged"], directory: Path, *, ours: bool) -> None:
    """Raises NotFound for the first blob that is not there; a fill that nothing was given for may be missing."""
    for judged in chosen:
        shown = {gpu.gpu: gpu.memory_mib for gpu in judged.verdict.gpus}
        for opening in _openings(judged):
            fill = opening.fill if shown[opening.gpu] else ""
            for name in (opening.rows, fill):
                if isinstance(name, str) and name and not (directory / name).is_file():
                    hint = "Without --blobs it is fetched from the network, as long as that keeps it."
                    raise NotFound(
                        f"{directory if ours else 'the network'} has no blob {name}",
                        why=f"it is what {judged.verdict.miner} opened for {opening.gpu}",
                        hint=hint if ours else "Name a directory that has it with --blobs, or other miners by --miner.",
                        blob=name,
                        miner=judged.verdict.miner,
                    )


async def _repeat(
    record: "ExamRecord", chosen: list["Judged"], directory: Path, candidates: tuple["Lists", ...]
) -> list[Compared]:
    """With the lists that a verdict states, where they are here; else with others, by which nothing is compared."""
    from actors.attestation.exam_check import ExamSetup
    from actors.attestation.judge import judge
    from actors.exam_judge import exam_of, is_fresh, submissions_of

    first = _examination(chosen[0])
    setup = ExamSetup(record.blocks[first.opened_height].hash, first.shape.inner, first.shape.columns)
    compared = []
    for judged in chosen:
        verdict, attestation, examination = judged.verdict, judged.attestation, _examination(judged)
        lists = next((found for found in candidates if found.digest() == verdict.lists), candidates[0])
        if not isinstance(examination.openings, UnsetType):
            examination = msgspec.structs.replace(examination, openings=_openings(judged))
        exam = await exam_of(examination, record.block)
        submissions = await submissions_of(examination, partial(_read, directory))
        fresh = await is_fresh(attestation, record.block)
        repeated = judge(verdict.miner, exam, setup, attestation.evidence, submissions, lists, fresh=fresh)
        compared.append(
            Compared(coordinator=judged.coordinator, height=judged.height, on_record=verdict, repeated=repeated)
        )
    return compared


async def _read(directory: Path, name: str) -> bytes | None:
    from actors.exam_judge import MAX_OPENING_BYTES

    path = directory / name
    if not path.is_file():
        return None
    return b"" if path.stat().st_size > MAX_OPENING_BYTES else path.read_bytes()


def _compare(checks: Checks, judged: "Judged", compared: Compared) -> None:
    """Every field of the verdict. Raises VerificationFailed for the first that the log has otherwise."""
    said, found = compared.on_record, compared.repeated
    same_lists = said.lists == found.lists
    openings = _examination(judged).openings
    named = set() if isinstance(openings, UnsetType) else {opening.gpu for opening in openings}

    def field(whose: str, name: str, recorded: object, repeated: object, unknown: str = "") -> None:
        claim = f"{whose}: {name.replace('_', ' ')} is {str(recorded).lower()}"
        if name in BY_LISTS and not same_lists:
            checks.skip(claim, f"the lists with digest {said.lists} are not here: name their file with --lists")
        elif unknown:
            checks.skip(claim, unknown)
        else:
            difference = f"it is {str(repeated).lower()}; coordinator {compared.coordinator} has said otherwise"
            checks.hold(claim, holds=recorded == repeated, difference=difference, hint=SHOW_OTHERS)

    miner = short(said.miner)
    for name in ("fresh", "driver"):
        field(miner, name, getattr(said, name), getattr(found, name))
    for mine, theirs in zip(said.gpus, found.gpus, strict=True):
        unknown = {}
        if mine.result == "absent" and mine.gpu in named:
            unknown["result"] = "whether its opening was there in time does not follow from the log"
        if not mine.memory_mib and theirs.memory_mib:
            unknown["memory_mib"] = f"{theirs.memory_mib} are shown by a blob that may have come too late"
        for name in GPU_FIELDS:
            field(f"{miner} {mine.gpu}", name, getattr(mine, name), getattr(theirs, name), unknown.get(name, ""))


def _lines(compared: Compared) -> str:
    lines = [f"miner {compared.on_record.miner}", f"judged by {compared.coordinator} in block {compared.height}"]
    for gpu in compared.on_record.gpus:
        rate = f"owes {gpu.expected} giga-operations/s"
        lines.append(f"{gpu.gpu}: {gpu.result}, {gpu.device}, {rate}, {gpu.memory_mib} MiB filled")
    return "\n".join(lines)
