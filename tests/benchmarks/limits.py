"""What the machine can do at best, by the libraries alone: the references of all other rows."""

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import nacl.bindings
import nats
from rows import Row

from bus.server import EmbeddedServer

VERIFICATIONS = 10_000
MESSAGE = os.urandom(400)
PUBLISHES = 60_000
IN_FLIGHT = 2_000
ROUND_TRIPS = 2_000


def _verify(signed: bytes, public: bytes, count: int) -> None:
    for _ in range(count):
        nacl.bindings.crypto_sign_open(signed, public)


def verifications_per_second(threads: int) -> float:
    """libsodium's Ed25519 verifications of a 400-byte message through PyNaCl, in so many threads."""
    public, secret = nacl.bindings.crypto_sign_keypair()
    signed = nacl.bindings.crypto_sign(MESSAGE, secret)
    rates = []
    with ThreadPoolExecutor(threads) as executor:
        for _ in range(3):
            began = time.perf_counter()
            list(executor.map(lambda _: _verify(signed, public, VERIFICATIONS // threads), range(threads)))
            rates.append(VERIFICATIONS / (time.perf_counter() - began))
    return median(rates)


async def publishes() -> tuple[float, float]:
    """Plain nats-py: 400-byte JetStream publishes per second, acknowledgements in flight and one after the other."""
    with TemporaryDirectory(prefix="assay-bench-") as directory:
        async with EmbeddedServer(Path(directory)) as server:
            client = await nats.connect(server.url)
            jetstream = client.jetstream(publish_async_max_pending=IN_FLIGHT)
            await jetstream.add_stream(name="LIMIT", subjects=["limit"])
            in_flight = []
            for _ in range(3):
                began = time.perf_counter()
                futures = [await jetstream.publish_async("limit", MESSAGE) for _ in range(PUBLISHES // 3)]
                await asyncio.gather(*futures)
                in_flight.append(len(futures) / (time.perf_counter() - began))
            began = time.perf_counter()
            for _ in range(ROUND_TRIPS):
                await jetstream.publish("limit", MESSAGE)
            alone = ROUND_TRIPS / (time.perf_counter() - began)
            await client.close()
    return median(in_flight), alone


async def measure() -> list[Row]:
    """The rows of this machine."""
    one, two = verifications_per_second(1), verifications_per_second(2)
    many, alone = await publishes()
    return [
        Row("libsodium_verify_per_second_1_thread", one, "1/s", "libsodium_verify_per_second_1_thread"),
        Row("libsodium_verify_per_second_2_threads", two, "1/s", "libsodium_verify_per_second_1_thread"),
        Row("jetstream_publish_per_second", many, "1/s", "jetstream_publish_one_by_one_per_second"),
        Row("jetstream_publish_one_by_one_per_second", alone, "1/s", "jetstream_publish_one_by_one_per_second"),
        Row("jetstream_publish_round_trip_ms", 1_000 / alone, "ms", "jetstream_publish_round_trip_ms"),
    ]
