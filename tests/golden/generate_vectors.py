"""Writes the test vectors in tests/golden/vectors, with which an implementation in any language can check itself.

    python -m tests.golden.generate_vectors

They are the same in every run. What each file holds is said in its field ``about``.
"""

import base64
import json
from pathlib import Path
from typing import Any, Final

from msgspec import UNSET
from msgspec.structs import replace

from events.blocks import hash_of
from events.canonical import canonical, digest
from events.envelope import MAX_DEPTH, MAX_EVENT_BYTES
from events.keys import BLOCK_DOMAIN, EVENT_DOMAIN, RECEIPT_DOMAIN, VOTE_DOMAIN, public_key_of
from events.merkle import consistency_path, inclusion_path, leaf_hash, root_of_hashes
from events.receipts import receipt_digest
from projections.attestation import attested, scores_of
from projections.exams import SPOT_DOMAIN, spot_number
from schemas.attestation import GpuEvidence, SourceReport
from schemas.events import type_of
from tests.golden import samples
from tests.golden.refused_envelopes import refused_envelopes
from tests.projections.attested import CUDA, GPU, LIVE, SECOND_GPU, attestation, gpu, host, verdict

DIRECTORY: Final = Path(__file__).parent / "vectors"
# Larger ones, which only try the limits of size and depth, would fill the files; the limits are in the file itself.
LARGEST_ENVELOPE: Final = 2_000
SIZES: Final = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17)


def vectors() -> dict[str, bytes]:
    """The files by name."""
    files = {
        "keys.json": _keys(),
        "events.json": _events(),
        "refused_envelopes.json": _refused(),
        "merkle.json": _merkle(),
        "blocks.json": _blocks(),
        "receipts.json": _receipts(),
        "attestation.json": _attestation(),
    }
    return {name: (json.dumps(value, indent=1) + "\n").encode() for name, value in files.items()}


def _keys() -> Any:
    alice = samples.ALICE.address
    pairs = {
        "alice": samples.ALICE,
        "bob": samples.BOB,
        "miner": samples.MINER,
        "coordinator": samples.COORDINATOR,
        **{f"validator {n}": key for n, key in enumerate(samples.VALIDATORS)},
    }
    return {
        "about": "Ed25519 seeds as NKey user seeds, with public keys (hexadecimal) and addresses. Never use them.",
        "keys": [
            {
                "name": name,
                "seed": key.seed_text(),
                "public_key": public_key_of(key.address).hex(),
                "address": key.address,
            }
            for name, key in pairs.items()
        ],
        "invalid_addresses": [
            "",
            alice.lower(),
            alice[:-1],
            alice + "A",
            alice[:20] + "A" + alice[21:],
            "A" + alice[1:],
            samples.ALICE.seed_text(),
        ],
    }


def _events() -> Any:
    return {
        "about": "Signed events. id = SHA-256(body as UTF-8); sig = base64url(Ed25519(domain + body)), not padded; "
        "envelope = what travels. `body` and `envelope` are texts: their UTF-8 bytes count.",
        "domain": EVENT_DOMAIN.decode(),
        "events": [
            {
                "name": name,
                "type": type_of(signed.event),
                "sender": signed.event.sender,
                "body": signed.body_bytes.decode(),
                "id": signed.id,
                "sig": signed.sig,
                "envelope": signed.raw.decode(),
            }
            for name, signed in samples.signed_events().items()
        ],
    }


def _refused() -> Any:
    return {
        "about": "Bytes (base64) that are no envelope, and the code of the refusal. `text` shows them where they are "
        "UTF-8. Signatures need not be checked for any of them.",
        "max_bytes": MAX_EVENT_BYTES,
        "max_depth": MAX_DEPTH,
        "envelopes": [
            {"name": name, "code": code, "envelope": base64.b64encode(raw).decode(), **_as_text(raw)}
            for name, raw, code in refused_envelopes()
            if len(raw) <= LARGEST_ENVELOPE
        ],
    }


def _as_text(raw: bytes) -> dict[str, str]:
    try:
        return {"text": raw.decode()}
    except UnicodeDecodeError:
        return {}


def _merkle() -> Any:
    return {
        "about": "RFC 9162 trees over SHA-256. All hashes and leaves are hexadecimal; `inclusion[i]` is the path of "
        "leaf i, from the leaf up; `consistency[n - 1]` shows that the first n leaves are a prefix.",
        "trees": [_tree(size) for size in SIZES],
    }


def _tree(size: int) -> Any:
    leaves = [f"leaf {number}".encode() for number in range(size)]
    hashes = [leaf_hash(leaf) for leaf in leaves]
    return {
        "leaves": [leaf.hex() for leaf in leaves],
        "root": root_of_hashes(hashes).hex(),
        "inclusion": [[node.hex() for node in inclusion_path(hashes, index)] for index in range(size)],
        "consistency": [[node.hex() for node in consistency_path(hashes, old)] for old in range(1, size + 1)],
    }


def _blocks() -> Any:
    vote = samples.vote_of(samples.VALIDATORS[0])
    return {
        "about": "Hash of the genesis and of a header = SHA-256 of their canonical texts. A block's sig is its "
        "proposer's over block_domain + header, a vote's its validator's over vote_domain + vote. The event root of "
        "the header is the RFC 9162 root over the envelopes. The block follows no rules: only its form is right.",
        "block_domain": BLOCK_DOMAIN.decode(),
        "vote_domain": VOTE_DOMAIN.decode(),
        "genesis": canonical(samples.genesis()).decode(),
        "genesis_hash": samples.chain_identity(),
        "header": canonical(samples.header()).decode(),
        "header_hash": hash_of(samples.header()),
        "proposer": samples.header().proposer,
        "block_sig": samples.block().sig,
        "block": canonical(samples.block()).decode(),
        "validator": vote.vote.validator,
        "vote": canonical(vote.vote).decode(),
        "vote_sig": vote.sig,
        "signed_vote": canonical(vote).decode(),
        "outcomes": [canonical(outcome).decode() for outcome in samples.outcomes()],
    }


def _receipts() -> Any:
    signed = samples.signed_receipt()
    return {
        "about": "A receipt as canonical text, its digest = SHA-256 of that, and the signatures over domain + receipt.",
        "domain": RECEIPT_DOMAIN.decode(),
        "receipt": canonical(signed.receipt).decode(),
        "digest": receipt_digest(signed.receipt),
        "signatures": json.loads(canonical(signed.signatures)),
        "signed_receipt": canonical(signed).decode(),
    }


def _attestation() -> Any:
    sysfs = SourceReport(vendor_id="10de", device_id="2684", bus_id="0000:3b:00.0")
    records = {
        "two sources, a right exam": attestation(),
        "a driver that no list has": attestation(driver="plausible"),
        "never examined": attestation(examined=False),
        "one source": attestation(host(gpu(cuda=UNSET))),
        "a wrong answer": attestation(None, verdict(result="wrong")),
        "ten times too slow": attestation(None, verdict(expected=5_000_001)),
        "not quite ten times too slow": attestation(None, verdict(expected=5_000_000)),
        "more than twice too slow": attestation(None, verdict(expected=1_000_001)),
        "just fast enough": attestation(None, verdict(expected=1_000_000)),
        "two names for one card": attestation(host(gpu(cuda=replace(CUDA, name="NVIDIA A100")))),
        "two ids for one card": attestation(host(gpu(sysfs=sysfs))),
        "an energy counter that stands": attestation(host(gpu(live=replace(LIVE, energy_after_mj=0)))),
        "something preloaded": attestation(host(preloaded=("/tmp/libnvidia-ml.so.1",))),
        "somebody else's card": attestation(shared=(GPU,)),
        "an old claim": attestation(fresh=False),
        "less memory filled than claimed": attestation(None, verdict(memory_mib=80_000)),
        "no memory filled": attestation(None, verdict(memory_mib=0)),
        "a processor": attestation(host(GpuEvidence(uuid="CPU-0")), driver="unknown"),
        "a processor with a driver": attestation(host(GpuEvidence(uuid="CPU-0"))),
        "two cards, one absent": attestation(
            host(gpu(), gpu(SECOND_GPU)), verdict(), verdict(SECOND_GPU, result="absent")
        ),
    }
    jobs = [digest(b"job %d" % number) for number in range(4)]
    return {
        "about": "Records of attestations as canonical text, and the scores that follow from them. What a settled job "
        "draws: SHA-256(domain + block hash + job id), big-endian, modulo 10,000.",
        "scores": [
            {
                "name": name,
                "attestation": canonical(record).decode(),
                "attested": json.loads(canonical(attested(record))),
                "gpus": [
                    {
                        "gpu": found.gpu,
                        "score": found.score,
                        "levels": [level.points for level in found.levels],
                        "caps": {cap.code: cap.limit for cap in found.caps},
                    }
                    for found in scores_of(record)
                ],
            }
            for name, record in records.items()
        ],
        "domain": SPOT_DOMAIN.decode(),
        "draws": [{"block": samples.ROWS, "job": job, "number": spot_number(samples.ROWS, job)} for job in jobs],
    }


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for file_name, data in vectors().items():
        (DIRECTORY / file_name).write_bytes(data)
