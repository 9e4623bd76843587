"""Tampering with wallets and with the genesis."""

from functools import cache
from pathlib import Path
from random import Random

import msgspec

from actors.keystore import Keystore
from actors.keystore_errors import KeystoreError
from actors.wallet_file import DerivationCost, seal
from events.blocks import decode_genesis, genesis_hash
from events.canonical import canonical
from events.errors import BadInput, VerificationFailed
from projections.state import State
from tests.fuzz.mutator import Mutator
from tests.projections.small_network import key_of
from tests.projections.story import story
from tests.tampering.changes import BYTES
from tests.tampering.verdicts import Target, Verdict, found, harmless, silent

PASSWORD = "Correct horse 1"
CHEAP = DerivationCost(passes=1, memory_bytes=8_192)
DEAREST_BYTES = 2**20


@cache
def _wallet(name: str) -> bytes:
    return seal(key_of(name), name, PASSWORD, 1, CHEAP, Path(name))


def _changed(data: bytes, other: bytes, chance: Random) -> tuple[str, bytes]:
    way = chance.choice((*BYTES, "another value", "a value of another file", "another file"))
    if way in BYTES:
        return way, BYTES[way](data, chance)
    if way == "another file":
        return way, other
    mutator = Mutator([data] if way == "another value" else [data, other], str(chance.random()))
    return way, mutator.next()


def keystore(chance: Random, directory: Path) -> tuple[str, Verdict]:
    """The wallet of Alice must stay hers, or not open."""
    directory.chmod(0o700)
    way, data = _changed(_wallet("alice"), _wallet("bob"), chance)
    path = directory / "alice.json"
    path.touch(mode=0o600)
    path.write_bytes(data)
    wallets = Keystore(directory)
    try:
        if wallets._read("alice").label.derivation.cost.memory_bytes > DEAREST_BYTES:
            return way, found("its cost is dearer than the test can afford, and a part of what is sealed")
        key = wallets.unlock("alice", PASSWORD)
    except KeystoreError as error:
        return way, found(type(error).__name__)
    if key.address != key_of("alice").address:
        return way, silent(f"the wallet opens with the key of {key.address}")
    return way, harmless("the same key comes out")


def genesis(chance: Random, directory: Path) -> tuple[str, Verdict]:
    """A genesis file that differs is no genesis, or is another chain's by its hash."""
    honest = msgspec.json.format(canonical(story().genesis), indent=2)
    other = msgspec.structs.replace(story().genesis, chain="another")
    way, data = _changed(honest, msgspec.json.format(canonical(other), indent=2), chance)
    try:
        read = decode_genesis(data)
        root = State.from_genesis(read).root()
    except (VerificationFailed, BadInput) as error:
        return way, found(type(error).__name__)
    if genesis_hash(read) != story().chain.genesis_hash:
        return way, found("its hash is another chain's")
    if root != State.from_genesis(story().genesis).root():
        return way, silent("the same hash, and another state")
    return way, harmless("only white space differs")


KEYSTORES = Target(name="keystore", attempt=keystore, share=4)
GENESES = Target(name="genesis", attempt=genesis, share=3)
