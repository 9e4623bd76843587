"""A client of Assay that needs nothing of Assay: nats-py, PyNaCl, NumPy and the standard library.

    python plain_client.py URL CHAIN SEED_FILE A.npy B.npy RESULT.npy

Has the product of two int8 matrices computed, follows the job, and fetches the verified result. Every step is plain
NATS and JSON; docs of the fields are the JSON Schemas that `assay schemas export` writes.
"""

import asyncio
import base64
import binascii
import hashlib
import json
import sys
from pathlib import Path

import nats
import numpy as np
from nacl.signing import SigningKey
from nats.js.api import ConsumerConfig, DeliverPolicy

CHUNK = 262_144


def load_key(path: Path) -> tuple[SigningKey, str]:
    """An NKey seed is base32 of two prefix bytes, 32 bytes of seed and a checksum; an address the same of the public
    key, with one prefix byte."""
    seed = base64.b32decode(path.read_text().strip() + "======")[2:34]
    key = SigningKey(seed)
    public = bytes([20 << 3]) + key.verify_key.encode()
    checksum = binascii.crc_hqx(public, 0).to_bytes(2, "little")
    return key, base64.b32encode(public + checksum).decode().rstrip("=")


def canonical(value: object) -> bytes:
    """RFC 8785, on values without floats and nulls: keys sorted, no white space."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def envelope(body: dict, key: SigningKey) -> tuple[str, bytes]:
    """The id of an event, and what is published: its body and the signature over tag and body."""
    data = canonical(body)
    signature = base64.urlsafe_b64encode(key.sign(b"assay:event:v1\0" + data).signature).decode().rstrip("=")
    return hashlib.sha256(data).hexdigest(), b'{"body":' + data + b',"sig":"' + signature.encode() + b'"}'


async def upload(jetstream: nats.js.JetStreamContext, chain: str, owner: str, path: Path) -> str:
    """A blob is its bytes in chunks, on a subject that ends in their SHA-256."""
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    for index, chunk in enumerate(chunks):
        headers = {"Assay-Chunk": f"{index}/{len(chunks)}"}
        await jetstream.publish(f"assay.{chain}.blob.{owner}.{digest}", chunk, headers=headers)
    return digest


async def download(jetstream: nats.js.JetStreamContext, chain: str, owner: str, digest: str) -> bytes:
    """The chunks in order; the digest says whether they are right."""
    subject = f"assay.{chain}.blob.{owner}.{digest}"
    reader = await jetstream.subscribe(subject, stream=f"ASSAY_{chain}_BLOBS", ordered_consumer=True)
    data, index, count = b"", 0, 1
    while index < count:
        message = await reader.next_msg(timeout=10)
        position, _, total = message.headers["Assay-Chunk"].partition("/")
        if int(position) == index:
            data, index, count = data + message.data, index + 1, int(total)
    await reader.unsubscribe()
    if hashlib.sha256(data).hexdigest() != digest:
        raise SystemExit("the blob does not have its digest")
    return data


async def ask(client: nats.NATS, chain: str, what: str, question: dict) -> dict:
    """Any node answers, with its height and the value, or with a problem."""
    message = await client.request(f"assay.{chain}.query.{what}", canonical(question), timeout=10)
    answer = json.loads(message.data)
    if answer["answer"] != "found":
        raise SystemExit(f"{answer['problem']['code']}: {answer['problem']['detail']}")
    return answer["value"]


async def main(url: str, chain: str, seed_file: Path, a: Path, b: Path, result: Path) -> None:
    key, address = load_key(seed_file)
    client = await nats.connect(url)
    jetstream = client.jetstream()

    async def refused(message: nats.aio.msg.Msg) -> None:
        print("refused:", message.data.decode(), flush=True)

    await client.subscribe(f"assay.{chain}.live.{address}.refused", cb=refused)
    feed = await jetstream.subscribe(
        f"assay.{chain}.feed.{address}",
        stream=f"ASSAY_{chain}_FEED",
        ordered_consumer=True,
        config=ConsumerConfig(deliver_policy=DeliverPolicy.NEW),
    )

    matrices = {}
    for name, path in (("a", a), ("b", b)):
        rows, columns = np.load(path, mmap_mode="r", allow_pickle=False).shape
        digest = await upload(jetstream, chain, address, path)
        matrices[name] = {"kind": "blob", "rows": rows, "columns": columns, "digest": digest}
        print(f"uploaded {path.name}, {digest}", flush=True)

    body = {
        "chain": chain,
        "type": "job.submitted",
        "sender": address,
        "nonce": (await ask(client, chain, "nonce", {"address": address}))["nonce"],
        "gas_price": 1,
        "work": {"service": "matmul.int8", **matrices},
        "escrow": 2_000_000,
        "lifetime_ms": 600_000,
        "timeout_ms": 60_000,
        "requirement": {"memory_mib": 0},
    }
    job, message = envelope(body, key)
    await jetstream.publish(f"assay.{chain}.inbox.{address}", message)
    print(f"job {job}", flush=True)

    miner, blob = await follow(feed, job)
    result.write_bytes(await download(jetstream, chain, miner, blob))
    print(f"downloaded {blob}", flush=True)

    # Exact: every sum of 131,071 products of two int8 is below 2^53.
    expected = np.load(a).astype(np.float64) @ np.load(b).astype(np.float64)
    equal = np.array_equal(np.load(result, allow_pickle=False), expected)
    print("the result equals NumPy's" if equal else "THE RESULT IS NOT NUMPY'S", flush=True)
    await client.close()
    if not equal:
        raise SystemExit(1)


async def follow(feed: nats.js.JetStreamContext.PushSubscription, job: str) -> tuple[str, str]:
    """Reads one's feed, which has all final events about one's jobs, until the job is settled."""
    miner = blob = ""
    while True:
        block = json.loads((await feed.next_msg(timeout=120)).data)
        for entry in block["entries"]:
            event = entry.get("event", {}).get("body", {"type": "deadline passed"})
            if job not in (entry["outcome"].get("event"), entry["outcome"].get("job"), event.get("job")):
                continue
            print(f"height {block['height']}: {event['type']}, {entry['outcome']['result']}", flush=True)
            if entry["outcome"]["result"] == "failed":
                if event["type"] == "job.submitted":
                    raise SystemExit(f"the job was not taken: {entry['outcome']['refusal']}")
                continue
            if event["type"] == "job.assigned":
                miner = event["miner"]
            elif event["type"] == "job.committed":
                blob = event["result"]
            elif event["type"] == "job.settled":
                return miner, blob
            given_back = event["type"] in ("job.refunded", "job.cancelled")
            if given_back or entry["outcome"].get("refunded"):
                raise SystemExit("the job ended without a result")


if __name__ == "__main__":
    _, server, name, *files = sys.argv
    asyncio.run(main(server, name, *map(Path, files)))
