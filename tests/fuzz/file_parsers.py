"""The parsers of files that a person or a stranger hands over: matrices, genesis, settings, policies, wallets."""

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from actors import wallet_file
from actors.command_line.context import CONTEXT, load_context
from actors.keystore import load_seed_file
from actors.keystore_errors import KeystoreError
from actors.roles import MinerTable, WalletTable
from actors.services.npy import header_bytes, matrix_from_bytes, read_header
from actors.services.png import SIGNATURE, Form, read_png
from actors.services.vectors import DTYPES, vector_from_bytes, vector_header
from actors.settings import load_settings
from actors.wallet_policy import policy_from_toml
from events.blocks import decode_genesis, genesis_hash
from events.canonical import canonical
from events.errors import AssayError, BadInput, InvalidKey, VerificationFailed
from projections.state import State
from projections.validators import Validators
from tests.fuzz.engine import Parse, Parser

PASSWORD = "Correct horse 1"
CHEAP_BYTES = 65_536


def _from_file(stack: ExitStack, name: str, read: Callable[[Path], object]) -> Parse:
    """Reads each input from a private file, which lies in memory where the system has a place for that."""
    shared = Path("/dev/shm")
    directory = tempfile.TemporaryDirectory(prefix="assay-fuzz-", dir=shared if shared.is_dir() else None)
    path = Path(stack.enter_context(directory)) / name
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    stack.callback(os.close, descriptor)

    def parse(data: bytes) -> object:
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
        return read(path)

    return parse


def npy(stack: ExitStack) -> Parse:
    def read(data: bytes) -> object:
        header = read_header(data)
        assert header.size >= header.offset
        if (header.rows, header.columns) != (8, 8):
            return header
        matrix = matrix_from_bytes(data, header.element, 8, 8)
        assert matrix.shape == (8, 8)
        assert not matrix.flags.writeable
        assert read_header(header_bytes(header.element, 8, 8)).element == header.element
        assert matrix.dtype == np.dtype(header.element)
        return header

    return read


def vector(stack: ExitStack) -> Parse:
    def read(data: bytes) -> object:
        found = vector_from_bytes(data, "int32", 8)
        assert found.shape == (8,)
        assert not found.flags.writeable
        assert found.dtype == np.dtype(DTYPES["int32"])
        assert vector_from_bytes(vector_header("int32", 8) + found.tobytes(), "int32", 8).tolist() == found.tolist()
        return found

    return read


def png(stack: ExitStack) -> Parse:
    """Checksums are set right first: a reader that looks at them would see nothing else of what is changed."""

    def read(data: bytes) -> object:
        found = read_png(with_checksums(data), Form(width=4, height=3, channels=3))
        assert found.shape == (3, 4, 3)
        assert found.dtype == np.uint8
        return found

    return read


def with_checksums(data: bytes) -> bytes:
    """The file with the checksum that each of its whole chunks should have."""
    content = bytearray(data)
    position = len(SIGNATURE)
    while position + 12 <= len(content):
        end = position + 8 + int.from_bytes(content[position : position + 4], "big")
        if end + 4 > len(content):
            break
        content[end : end + 4] = crc32(content[position + 4 : end]).to_bytes(4, "big")
        position = end + 4
    return bytes(content)


def genesis(stack: ExitStack) -> Parse:
    def read(data: bytes) -> object:
        found = decode_genesis(data)
        assert decode_genesis(canonical(found)) == found
        identity = genesis_hash(found)
        state = State.from_genesis(found)
        validators = Validators(found)
        assert validators.proposer(1, 0) in validators
        state.check_conservation()
        assert genesis_hash(found) == identity
        return found

    return read


def settings(stack: ExitStack) -> Parse:
    def read(path: Path) -> object:
        found = load_settings({}, {"ASSAY_CONFIG": str(path)})
        for name, record in (("miner", MinerTable), ("wallet", WalletTable)):
            if name in found.tables:
                found.table(name, record)
        return found

    return _from_file(stack, "settings.toml", read)


def policy(stack: ExitStack) -> Parse:
    return lambda data: policy_from_toml(data.decode("utf-8", "replace"), "policy.toml")


def keystore(stack: ExitStack) -> Parse:
    path = Path("wallet.json")

    def read(data: bytes) -> object:
        found = wallet_file.decode(bytearray(data), path)
        cost = found.label.derivation.cost
        if cost.memory_bytes > CHEAP_BYTES or cost.passes > 2:
            return found
        key = wallet_file.unseal(found, PASSWORD, path)
        assert key.address == found.label.address
        return key.address

    return read


def seed_file(stack: ExitStack) -> Parse:
    return _from_file(stack, "actor.seed", lambda path: load_seed_file(path).address)


def context(stack: ExitStack) -> Parse:
    return _from_file(stack, CONTEXT, lambda path: _required(load_context(path.parent)))


def _required(value: Any) -> Any:
    assert value is not None
    return value


PARSERS = (
    Parser(name="npy", make=npy, refusals=(BadInput,)),
    Parser(name="vector", make=vector, refusals=(BadInput,)),
    Parser(name="png", make=png, refusals=(BadInput,)),
    Parser(name="genesis", make=genesis, refusals=(VerificationFailed, BadInput)),
    Parser(name="settings", make=settings, refusals=(BadInput,)),
    Parser(name="policy", make=policy, refusals=(AssayError,)),
    Parser(name="keystore", make=keystore, refusals=(KeystoreError,)),
    Parser(name="seed-file", make=seed_file, refusals=(KeystoreError, InvalidKey)),
    Parser(name="context", make=context, refusals=(BadInput,)),
)
