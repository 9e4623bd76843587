"""``assay verify receipt|proof``: offline, from a file and the genesis."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from cyclopts import Parameter
from msgspec import Struct

from actors.command_line.checks import Checks
from actors.command_line.context import load_context
from actors.command_line.options import DISPLAY, Display
from actors.command_line.output import Output, plain
from actors.command_line.sentences import in_words, short
from events.blocks import decode_genesis, genesis_hash
from events.canonical import UNREADABLE, canonical
from events.errors import BadInput, VerificationFailed
from events.receipts import receipt_signature_holds
from projections.proofs import ProvenEvent, ProvenState, verify_bundle
from projections.receipts import receipt_of
from schemas.events import JobSettled
from schemas.genesis import Genesis
from schemas.messages import ProofBundle
from schemas.queries import ReceiptAnswer
from schemas.receipts import SignedReceipt
from schemas.state import Job, Settled

Value = TypeVar("Value")
LARGEST_FILE = 64 * 2**20

GenesisFile = Annotated[
    Path | None,
    Parameter(env_var="ASSAY_GENESIS", help="Genesis of the chain; else that of the devnet of this directory."),
]


File = Annotated[Path, Parameter(help="The file to check.")]


def load_genesis(file: Path | None) -> Genesis | None:
    """The genesis of the file, else of the context, else None. Raises BadInput."""
    if file is None:
        context = load_context()
        if context is None or not isinstance(context.genesis, str):
            return None
        file = Path(context.genesis)
    return decode_genesis(file.read_bytes())


def read_record(file: Path, kind: type[Value], hint: str = "Write it with -o json.") -> Value:
    """A record from a file that may have been formatted for people; ``hint`` says who writes one. Raises BadInput."""
    with file.open("rb") as opened:
        data = opened.read(LARGEST_FILE)
    try:
        # Parts whose very bytes are signed or hashed are canonical JSON; so is this, whatever the file looks like.
        return msgspec.json.decode(canonical(msgspec.json.decode(data)), type=kind)
    except UNREADABLE as error:
        raise BadInput(f"{file} cannot be read", why=str(error), hint=hint) from error


def verify_receipt(file: File, /, *, genesis: GenesisFile = None, display: Display = DISPLAY) -> None:
    """Check a receipt as `assay receipt JOB -o json` writes it: its signatures, and against the genesis that the job
    was settled in a final block with just this receipt."""
    output = Output(display)
    known = load_genesis(genesis)
    answer = _receipt_in(file)
    signed = answer.receipt if isinstance(answer, ReceiptAnswer) else answer
    checks = Checks()
    about: dict[str, object] = {"job": signed.receipt.job_id, "chain": signed.receipt.chain_id}
    with_list(checks, output, about, lambda: _check_receipt(checks, answer, known), known=known is not None)
    if known is None:
        raise BadInput(
            "no genesis, so nothing is proved",
            why="it is the genesis that says who may sign for the chain",
            hint="Name the chain's genesis file with --genesis.",
        )


def with_list(
    checks: Checks,
    output: Output,
    about: dict[str, object],
    run: Callable[[], None],
    *,
    known: bool = True,
    words: dict[str, object] | None = None,
) -> None:
    """Runs the checks and prints their list, also when one of them does not hold. People read ``words``, where given,
    instead of ``about``."""
    try:
        run()
    except VerificationFailed:
        checks.show(output, about, known=known, words=words)
        raise
    checks.show(output, about, known=known, words=words)


def _receipt_in(file: Path) -> ReceiptAnswer | SignedReceipt:
    hint = "Name a file that `assay receipt ID -o json` wrote."
    found = read_record(file, dict[str, msgspec.Raw], hint)
    if "inclusion" in found:
        return read_record(file, ReceiptAnswer, hint)
    return read_record(file, SignedReceipt, hint)


def _check_receipt(checks: Checks, answer: ReceiptAnswer | SignedReceipt, genesis: Genesis | None) -> None:
    signed = answer.receipt if isinstance(answer, ReceiptAnswer) else answer
    receipt = signed.receipt
    miner, coordinator = signed.signatures
    checks.hold(
        "the receipt is that of its job",
        holds=receipt.receipt_id == receipt.job_id,
        difference=f"receipt_id is {receipt.receipt_id}, job_id {receipt.job_id}",
    )
    roles = (miner.signer_role, coordinator.signer_role)
    checks.hold(
        "it names the signatures of miner and coordinator",
        holds=roles == ("miner", "coordinator") and miner.key_id == receipt.provider,
        difference=f"they are of {roles[0]} {miner.key_id} and {roles[1]} {coordinator.key_id}",
    )
    for entry in signed.signatures:
        checks.hold(
            f"the {entry.signer_role} {short(entry.key_id)} signed it",
            holds=receipt_signature_holds(receipt, entry.key_id, entry.sig),
            difference=f"the signature of {entry.key_id} is not for these bytes",
        )
    claims = (
        "the signer is a coordinator of the chain",
        "the settlement is in a final block",
        "the ledger says the same",
    )
    if genesis is None:
        for claim in claims:
            checks.skip(claim, "no genesis: name it with --genesis FILE")
        return
    checks.hold(
        "it is of this chain",
        holds=receipt.chain_id == genesis.chain,
        difference=f"it says {receipt.chain_id}, the genesis {genesis.chain}",
    )
    checks.hold(
        claims[0],
        holds=coordinator.key_id in genesis.coordinators,
        difference=f"{coordinator.key_id} is not in the genesis",
    )
    if isinstance(answer, SignedReceipt):
        for claim in claims[1:]:
            checks.skip(claim, "the file holds no proofs: write it with `assay receipt JOB -o json`")
        return
    _check_settlement(checks, answer, genesis)


def _check_settlement(checks: Checks, answer: ReceiptAnswer, genesis: Genesis) -> None:
    receipt = answer.receipt.receipt
    miner, coordinator = answer.receipt.signatures
    event = proven(checks, "the settlement is in a final block", answer.inclusion, genesis)
    said = event.event.event if isinstance(event, ProvenEvent) else None
    checks.hold(
        "that settlement is of this job, with this signature",
        holds=isinstance(said, JobSettled)
        and (said.job, said.sender, said.receipt_sig) == (receipt.job_id, coordinator.key_id, coordinator.sig),
        difference="the proven event settles something else" if said is None else in_words(said),
    )
    state = proven(checks, "the job's record is in the state of a final block", answer.settlement, genesis)
    checks.hold(
        "that record is of this job",
        holds=isinstance(state, ProvenState) and state.key == f"job/{receipt.job_id}" and state.value is not None,
        difference=f"the proof is of {state.key}" if isinstance(state, ProvenState) else "it proves an event",
    )
    value = state.value if isinstance(state, ProvenState) else None
    job = msgspec.json.decode(value or b"{}", type=Job)
    situation = job.situation
    checks.hold(
        "the job is settled with both signatures",
        holds=isinstance(situation, Settled)
        and (situation.miner_sig, situation.coordinator_sig) == (miner.sig, coordinator.sig),
        difference="the ledger has other signatures, or the job is not settled",
    )
    derived = plain(receipt_of(receipt.job_id, job, genesis.chain))
    given = plain(receipt)
    name = next((name for name in derived if derived[name] != given[name]), "")
    checks.hold(
        "every field of the receipt follows from the ledger",
        holds=not name,
        difference=f"{name}: the ledger says {derived.get(name)}, the receipt {given.get(name)}",
    )


def _bundle_in(file: Path) -> ProofBundle:
    hint = "Name a file that `assay proof WHAT -o json` wrote."
    found = read_record(file, dict[str, msgspec.Raw], hint)
    return read_record(file, _Answered, hint).value if "answer" in found else read_record(file, ProofBundle, hint)


class _Answered(Struct, frozen=True):
    """A node's answer around a proof."""

    value: ProofBundle


def proven(checks: Checks, claim: str, bundle: ProofBundle, genesis: Genesis) -> ProvenState | ProvenEvent:
    """What the bundle proves. Notes the check, raises VerificationFailed."""
    try:
        found = verify_bundle(bundle, genesis)
    except VerificationFailed as error:
        checks.failed(claim, str(error))
        raise
    checks.hold(claim, holds=True, difference="")
    return found


def verify_proof(file: File, /, *, genesis: GenesisFile = None, display: Display = DISPLAY) -> None:
    """Check a proof of an event or of a state record against the genesis: as `assay proof WHAT -o json` writes it, or
    as a node answers it."""
    output = Output(display)
    known = load_genesis(genesis)
    if known is None:
        raise BadInput("no genesis", hint="Name the file with --genesis; its hash is the identity of the chain.")
    bundle = _bundle_in(file)
    checks = Checks()
    header = bundle.block.header
    about: dict[str, object] = {
        "kind": bundle.kind,
        "chain": header.chain,
        "genesis": genesis_hash(known),
        "height": header.height,
    }

    def run() -> None:
        claim = f"a quorum of the genesis' validators made block {header.height} final, and it holds this"
        found = proven(checks, claim, bundle, known)
        if isinstance(found, ProvenState):
            about["key"] = found.key
            about["value"] = "absent" if found.value is None else found.value.decode()
        else:
            about["event"] = found.event.id
            about["says"] = in_words(found.event.event)

    with_list(checks, output, about, run)
