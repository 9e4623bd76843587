"""What the fuzzer starts from: for each parser inputs that it reads (``good-…``) and inputs it refuses (``bad-…``).

They are made from today's records, so they follow every change of a format. Kept as files in ``corpus`` is what cannot
be made again: wallets, whose salts are random, and what was once found (``found-…``).
"""

import asyncio
import io
import re
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from actors.queries import Queries
from actors.sandbox_messages import Completed, Exited, Failed, FailureCode, Job, Progressed, Ready, encode_line
from actors.services.png import write_png
from events.canonical import canonical, digest
from projections.audit import Auditor
from projections.log_file import LogWriter
from projections.proofs import event_bundle, state_bundle
from schemas.messages import EventRefused, Problem, Progress, QueryRefused, WalletRequest
from schemas.refusals import HINTS, NonceTooLow
from schemas.services import BlobMatrix, MatmulInt8, service_of
from tests.fuzz import attestation_parsers, ground
from tests.fuzz.message_parsers import ALICE, BLOB, _NodeAtHead, _written_model
from tests.fuzz.result_parsers import known
from tests.golden import samples
from tests.golden.refused_envelopes import refused_envelopes
from tests.projections.small_network import SmallNetwork, key_of
from tests.projections.story import story

CORPUS: Final = Path(__file__).parent / "corpus"
LONGEST: Final = 16_384
Seed = tuple[str, str, bytes]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _ledger() -> Iterator[Seed]:
    for name, signed in samples.signed_events().items():
        yield "envelope", f"good-{name}", signed.raw
    for name, raw, _ in refused_envelopes():
        yield "envelope", f"bad-{name}", raw
    yield "block", "good-all-events", canonical(samples.block())
    yield "block", "good-next", ground.next_messages()["block"][1]
    yield "block", "bad-white-space", canonical(samples.block()).replace(b',"header"', b', "header"')
    yield "vote", "good-vote", canonical(samples.vote_of(samples.VALIDATORS[0]))
    yield "vote", "good-next", ground.next_messages()["vote"][1]
    yield "vote", "bad-block", ground.next_messages()["block"][1]
    for kind, data in ground.next_messages().values():
        yield "log", f"good-{kind}", f"{kind}\n".encode() + data
    yield "log", "bad-kind", b"rumour\n{}"
    final = story().finals[0]
    yield "log", "bad-old-block", b"block\n" + final.block_bytes
    for key in (key_of("alice"), samples.ALICE):
        yield "address", f"good-{key.address[1:5]}", key.address.encode()
        yield "seed", f"good-{key.address[1:5]}", key.seed_text().encode()
    yield "seed", "good-white-space", b" " + key_of("alice").seed_text().encode() + b"\n"
    yield "address", "bad-seed", key_of("alice").seed_text().encode()
    yield "address", "bad-small", key_of("alice").address.lower().encode()
    yield "seed", "bad-address", key_of("alice").address.encode()
    yield "signature", "good-right", key_of("alice").sign(b"message").encode()
    yield "signature", "good-wrong", key_of("bob").sign(b"message").encode()
    yield "signature", "bad-padded", key_of("alice").sign(b"message").encode() + b"=="


def _proofs() -> Iterator[Seed]:
    header, votes = ground.head_of_story()
    state = story().chain.state
    for name, key in (
        ("account", f"account/{ALICE}"),
        ("absent", f"account/{key_of('nobody').address}"),
        ("job", f"job/{story().settled}"),
        ("supply", "supply"),
    ):
        yield "proof", f"good-{name}", canonical(state_bundle(header, votes, state.prove(key)))
    final = story().finals[0]
    raws = [signed.raw for signed in final.events]
    bundle = event_bundle(final.header, final.votes, raws, 3)
    yield "proof", "good-event", canonical(bundle)
    yield "proof", "bad-both", canonical(msgspec.structs.replace(bundle, state=state.prove("supply")))
    yield (
        "proof",
        "bad-no-votes",
        canonical(msgspec.structs.replace(bundle, block=msgspec.structs.replace(bundle.block, votes=()))),
    )


def _exports() -> Iterator[Seed]:
    network = SmallNetwork()
    network.block(network.transfer())
    auditor = Auditor(network.genesis)
    for entry in network.log:
        auditor.add(*entry)
    file = io.BytesIO()
    writer = LogWriter(file, network.genesis)
    for entry in network.log:
        writer.add(*entry)
    writer.add(len(network.log) + 1, "vote", b"\xffno JSON")
    writer.close(auditor.totals())
    yield "export", "good-one-block", file.getvalue()
    yield "export", "bad-cut", file.getvalue()[:-90]


def _pictures() -> Iterator[Seed]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picture.png"
        write_png(file, np.arange(36, dtype=np.uint8).reshape(3, 4, 3))
        picture = file.read_bytes()
    filtered = zlib.compress(b"".join(bytes([kind, *range(kind, kind + 12)]) for kind in (2, 3, 4)))
    parts = len(filtered) // 2
    chunks = [(b"tEXt", b"Title\0a title"), (b"IDAT", filtered[:parts]), (b"IDAT", filtered[parts:]), (b"IEND", b"")]
    foreign = b"".join(len(content).to_bytes(4, "big") + kind + content + bytes(4) for kind, content in chunks)
    yield "png", "good-picture", picture
    yield "png", "good-filters-and-text", picture[:33] + foreign
    yield "png", "bad-interlaced", picture[:28] + b"\1" + picture[29:]
    yield "png", "bad-cut", picture[:-5]


def _files() -> Iterator[Seed]:
    for name, array in (
        ("int8", np.arange(64, dtype=np.int8).reshape(8, 8)),
        ("int32", np.arange(64, dtype=np.int32).reshape(8, 8)),
        ("wide", np.zeros((1, 3), dtype=np.int8)),
    ):
        yield "npy", f"good-{name}", _npy(array)
    yield "npy", "bad-float", _npy(np.zeros((2, 2)))
    yield "npy", "bad-column-by-column", _npy(np.asfortranarray(np.zeros((2, 3), dtype=np.int8)))
    yield "npy", "bad-version-3", _npy(np.zeros((2, 2), dtype=np.int8)).replace(b"\x01\x00v", b"\x03\x00v", 1)
    yield "npy", "bad-long-header", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{"
    yield "vector", "good-int32", _npy(np.arange(8, dtype=np.int32))
    yield "vector", "bad-uint32", _npy(np.arange(8, dtype=np.uint32))
    yield "vector", "bad-matrix", _npy(np.zeros((8, 1), dtype=np.int32))
    yield from _pictures()
    genesis = canonical(ground.genesis())
    yield "genesis", "good-story", genesis
    yield "genesis", "good-formatted", msgspec.json.format(canonical(samples.genesis()), indent=2)
    yield (
        "genesis",
        "bad-disorder",
        canonical(msgspec.structs.replace(ground.genesis(), allocations=ground.genesis().allocations[::-1])),
    )
    yield "genesis", "bad-empty", b"{}"
    yield "settings", "good-miner", _SETTINGS
    yield "settings", "good-least", b'chain = "devnet"'
    yield "settings", "bad-unknown", b'chain = "devnet"\nwings = 2\n'
    yield "settings", "bad-toml", b"chain = devnet"
    yield "policy", "good-all", _POLICY
    yield "policy", "good-least", b"request_limit = 1\ndaily_limit = 2\n"
    yield "policy", "bad-type", b'request_limit = 1\ndaily_limit = 2\ntypes = ["a.b"]\n'
    seed = key_of("alice").seed_text().encode()
    yield "seed-file", "good-plain", seed + b"\n"
    decorated = b"-----BEGIN USER NKEY SEED-----\n" + seed + b"\n------END USER NKEY SEED------\n"
    yield (
        "seed-file",
        "good-decorated",
        b"-----BEGIN NATS USER JWT-----\nx\n------END NATS USER JWT------\n" + decorated,
    )
    yield "seed-file", "bad-checksum", seed[:-1] + b"A\n"
    yield "seed-file", "bad-empty", b""
    yield "context", "good-devnet", b'{"url":"nats://127.0.0.1:4222","chain":"devnet","genesis":"/tmp/genesis.json"}'
    yield "context", "bad-url", b'{"url":4222,"chain":"devnet"}'


def _npy(array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


_SETTINGS: Final = b"""url = "nats://127.0.0.1:4222"
chain = "devnet"
data_dir = "data"
gas_price = 10
log_form = "json"

[miner]
name = "rack 1"
capacity = 2

[wallet]
policy = "policy.toml"
"""

_POLICY: Final = f"""request_limit = 1_000_000
daily_limit = 5_000_000
types = ["transfer.sent", "job.submitted"]
recipients = ["{key_of("bob").address}"]
services = ["matmul.int8"]
""".encode()


def _answers() -> Iterator[Seed]:
    """Questions, and what a node answers to them."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "node.sqlite"
        asyncio.run(_written_model(path))
        db = sqlite3.connect(path)
        handlers = Queries(_NodeAtHead(db)).handlers()  # type: ignore[arg-type]

        async def asked(what: str, data: bytes) -> bytes:
            return await handlers[what](data)

        def answered(what: str, data: bytes) -> bytes:
            return asyncio.run(asked(what, data))

        for name, what, data in _questions():
            kind = "bad" if name.startswith("bad") else "good"
            yield "question", name if kind == "bad" else f"good-{name}", f"{what}\n".encode() + data
            answer = answered(what, data)
            if what in {"account", "block", "event", "job", "proof", "receipt", "status", "nonce"}:
                yield "answer", name if kind == "bad" else f"good-{name}", f"{what}\n".encode() + answer
            if what == "receipt" and kind == "good":
                found = msgspec.json.decode(answer, type=dict[str, msgspec.Raw])["value"]
                yield "receipt", "good-answer", bytes(found)
                signed = bytes(msgspec.json.decode(found, type=dict[str, msgspec.Raw])["receipt"])
                yield "receipt", "good-alone", signed
                yield "receipt", "bad-price", signed.replace(b'"price":', b'"price":1')
        said = answered("event", canonical({"event": story().failing.id}))
        yield "answer", "good-said", b"said\n" + said
        yield "answer", "good-worker", b"worker\n" + said
        problem = Problem(code="NOT_FOUND", detail="d", hint="h", data={"height": 1})
        yield (
            "answer",
            "bad-data",
            b"nonce\n" + canonical(QueryRefused(height=1, problem=problem)),
        )
        db.close()


def _questions() -> Iterator[Seed]:
    job, event = story().settled, story().failing.id
    asked: dict[str, tuple[str, dict[str, object]]] = {
        "account": ("account", {"address": ALICE}),
        "nonce": ("nonce", {"address": ALICE, "min_height": 3}),
        "job": ("job", {"job": job}),
        "jobs": ("jobs", {"owner": ALICE, "situation": "settled", "limit": 2, "cursor": "9.0"}),
        "block": ("block", {"height": 1, "cursor": "1.2", "limit": 3}),
        "block-by-hash": ("block", {"hash": story().finals[2].hash}),
        "blocks": ("blocks", {"limit": 3, "cursor": "7"}),
        "headers": ("headers", {"first": 2, "limit": 4}),
        "event": ("event", {"event": event}),
        "events": ("events", {"address": ALICE, "limit": 5, "cursor": "8.1"}),
        "miner": ("miner", {"miner": key_of("miner 0").address}),
        "miners": ("miners", {"limit": 1, "cursor": key_of("miner 0").address}),
        "status": ("status", {}),
        "genesis": ("genesis", {}),
        "receipt": ("receipt", {"job": job}),
        "proof-of-record": ("proof", {"key": f"job/{job}"}),
        "proof-of-event": ("proof", {"event": event}),
        "bad-height": ("block", {"height": 10**6}),
        "bad-min-height": ("status", {"min_height": 10**6}),
        "bad-field": ("status", {"x": 1}),
        "bad-two": ("proof", {"key": "supply", "event": event}),
    }
    for name, (what, fields) in asked.items():
        yield name, what, canonical(fields)


def _messages() -> Iterator[Seed]:
    yield "feed", "good-block", ground.feed_message()
    yield "feed", "bad-envelope", ground.feed_message().replace(b'"body":{', b'"body": {')
    yield "feed", "bad-text", b"hello"
    transfer = b'{"amount":1000,"memo":"x","to":"%s","type":"transfer.sent"}' % key_of("bob").address.encode()
    job = samples.signed_events()["job with blobs"].event
    fields = {
        name: value
        for name, value in msgspec.to_builtins(job).items()
        if name not in {"chain", "nonce", "sender", "gas_price"}
    }
    for name, event in (("transfer", transfer), ("job", canonical(fields))):
        yield "request", f"good-{name}", canonical(WalletRequest(key="once", event=msgspec.Raw(event)))
        yield "draft", f"good-{name}", event
    yield (
        "request",
        "bad-too-much",
        canonical(WalletRequest(key="k", event=msgspec.Raw(transfer.replace(b"1000", b"9999999999")))),
    )
    yield "draft", "bad-nonce", b'{"nonce":1,' + transfer[1:]
    yield "draft", "bad-type", b'{"type":"nobody.knows"}'
    pieces = [BLOB[start : start + 8] for start in range(0, len(BLOB), 8)]
    yield "chunk", "good-blob", b"\n".join(b"%d/%d " % (i, len(pieces)) + piece for i, piece in enumerate(pieces))
    yield "chunk", "good-alone", b"0/1 " + BLOB
    yield "chunk", "bad-index", b"3/3 x\n-1/2 y\n\xc2\xb2/3 z"
    replies = {
        "ready": Ready(walls=()),
        "progressed": Progressed(1, 2),
        "completed": Completed(root=digest(b"r"), digest=digest(b"d"), size=9),
        "failed": Failed(code=FailureCode.MEMORY, detail="too much"),
        "exited": Exited(exit_code=-9),
    }
    for name, reply in replies.items():
        yield "sandbox", f"good-{name}", encode_line(reply)
    matrix = BlobMatrix(rows=2, columns=2, digest=digest(b"a"))
    work = Job(
        work=MatmulInt8(a=matrix, b=matrix), blobs={digest(b"a"): "/a"}, directory="/d", threads=1,
        memory_bytes=1, output_bytes=1, cpu_seconds=1,
    )  # fmt: skip
    yield "task", "good-job", encode_line(work)
    yield "task", "bad-reply", encode_line(Ready(walls=()))
    yield "sandbox", "bad-end", b""
    yield (
        "live",
        "good-refused",
        canonical(
            EventRefused(
                refusal=NonceTooLow(expected=2, found=1), hint=HINTS["NONCE_TOO_LOW"], event=story().failing.id
            )
        ),
    )
    yield "live", "bad-progress", canonical(Progress(job=story().settled, stage="multiply", done_bps=5_000))
    yield "acknowledgement", "good-stored", b'{"stream":"ASSAY_devnet_CHAIN","seq":7}'
    yield (
        "acknowledgement",
        "good-refused",
        (b'{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"},"stream":"S","seq":0}'),
    )
    yield "acknowledgement", "bad-text", b"+OK"
    yield "delivery", "good-short", b"$JS.ACK.ASSAY_devnet_CHAIN.reader.1.12.3.1760000000000000000.4"
    yield "delivery", "good-long", b"$JS.ACK._.hash.ASSAY_devnet_CHAIN.reader.1.12.3.1760000000000000000.4.random"
    yield "delivery", "bad-number", b"$JS.ACK.S.reader.1.x.3.1760000000000000000.4"
    yield "headers", "good-pair", b"NATS/1.0\r\nAssay-Chunk: 0/2\r\nNats-Msg-Id: 1\r\n\r\n"
    yield "headers", "good-status", b"NATS/1.0 409 Message Size Exceeds MaxBytes\r\nNats-Pending-Messages: 1\r\n\r\n"
    yield "headers", "bad-bytes", b"NATS/1.0\r\n\xff: \xfe\r\n\r\n"


def _results() -> Iterator[Seed]:
    for number, each in enumerate(known()):
        service = service_of(each.work)
        yield "result", f"good-{service}", bytes([number]) + each.result
        yield "result", f"bad-{service}", bytes([number]) + each.result[:-1] + bytes([each.result[-1] ^ 1])


def _attestation() -> Iterator[Seed]:
    opening, update = attestation_parsers.opening(), attestation_parsers.update()
    yield "exam-opening", "good-row", opening
    yield "exam-opening", "bad-short", opening[:-1]
    yield "lists", "good-update", update
    yield "lists", "bad-version", update.replace(b'"version":1', b'"version":0')
    yield "lists", "bad-cut", update[:-9]


@cache
def _made() -> dict[str, dict[str, bytes]]:
    made: dict[str, dict[str, bytes]] = {}
    for source in (_ledger, _proofs, _exports, _files, _answers, _messages, _results, _attestation):
        for parser, name, data in source():
            if len(data) <= LONGEST:
                made.setdefault(parser, {})[_slug(name)] = data
    return made


def corpus_of(parser: str) -> dict[str, bytes]:
    """The inputs for one parser, by name."""
    kept = {path.name: path.read_bytes() for path in sorted((CORPUS / parser).glob("*-*"))}
    return _made().get(parser, {}) | kept
