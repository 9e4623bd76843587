import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import nacl.exceptions
import nacl.pwhash.argon2id
import nkeys
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.keystore import Keystore, Wallet, check_password, load_seed_file, wipe, write_seed_file
from actors.keystore_errors import (
    BadPassword,
    CorruptKeystore,
    InsecurePermissions,
    InvalidWalletName,
    KeystoreError,
    KeystoreUnavailable,
    WalletExists,
    WalletNotFound,
    WeakPassword,
)
from actors.private_file import create_private_file
from actors.wallet_file import DerivationCost, seal
from events.errors import InvalidKey
from events.keys import Key, verify

PASSWORD = "Correct-Horse-42"
OTHER_PASSWORD = "Battery_Staple-7"
NOW_MS = 1_800_000_000_000
CHEAP = DerivationCost(passes=1, memory_bytes=8_192)
KEY = Key(bytes(range(32)))
CREDENTIALS = """-----BEGIN NATS USER JWT-----
eyJ0eXAi
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "wallets"


@pytest.fixture
def keystore(directory: Path) -> Keystore:
    return Keystore(directory, CHEAP)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_full_cost(directory: Path) -> None:
    """By default the key costs three passes over 64 MiB, and the file says so; it opens with the password alone."""
    keystore = Keystore(directory)
    wallet = keystore.create("alice", PASSWORD, NOW_MS)
    content = json.loads((directory / "alice.json").read_bytes())
    assert content["label"]["derivation"]["cost"] == {"passes": 3, "memory_bytes": 64 * 1024 * 1024, "parallelism": 1}
    assert Keystore(directory, CHEAP).unlock("alice", PASSWORD).address == wallet.address
    with pytest.raises(BadPassword):
        keystore.unlock("alice", OTHER_PASSWORD)


def test_create_and_unlock(keystore: Keystore) -> None:
    """A new wallet's key signs for its address; two wallets have two keys."""
    alice = keystore.create("alice", PASSWORD, NOW_MS)
    bob = keystore.create("bob", PASSWORD, NOW_MS)
    assert alice.address != bob.address
    signature = keystore.unlock("alice", PASSWORD).sign(b"message")
    assert verify(alice.address, b"message", signature)
    assert not verify(bob.address, b"message", signature)


def test_private_from_the_start(keystore: Keystore, directory: Path) -> None:
    """The directory has mode 0700 and a file 0600 whatever the umask, and no temporary file stays."""
    before = os.umask(0)
    try:
        keystore.create("alice", PASSWORD, NOW_MS)
        keystore.change_password("alice", PASSWORD, OTHER_PASSWORD)
    finally:
        os.umask(before)
    assert mode_of(directory) == 0o700
    assert [(path.name, mode_of(path)) for path in directory.iterdir()] == [("alice.json", 0o600)]


def test_seed_is_not_in_the_file(keystore: Keystore, directory: Path) -> None:
    """The file holds neither the seed, in any usual spelling, nor the password."""
    keystore.import_seed("alice", KEY.seed_text(), PASSWORD, NOW_MS)
    content = (directory / "alice.json").read_text()
    for secret in (KEY.seed_text(), bytes(range(32)).hex(), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", PASSWORD):
        assert secret not in content


def test_same_key_twice_looks_different(keystore: Keystore, directory: Path) -> None:
    """Salt and nonce are new for each file, so equal keys and passwords do not show."""
    files = []
    for name in ("one", "two"):
        keystore.import_seed(name, KEY.seed_text(), PASSWORD, NOW_MS)
        files.append(json.loads((directory / f"{name}.json").read_bytes()))
    assert files[0]["label"]["derivation"]["salt"] != files[1]["label"]["derivation"]["salt"]
    assert files[0]["nonce"] != files[1]["nonce"]
    assert files[0]["sealed"] != files[1]["sealed"]


def test_seed_travels_to_other_tools(keystore: Keystore) -> None:
    """An exported seed gives the same address in the nkeys library, and one from there can be imported."""
    wallet = keystore.create("alice", PASSWORD, NOW_MS)
    pair = nkeys.from_seed(keystore.export_seed("alice", PASSWORD).encode())
    assert pair.public_key.decode() == wallet.address
    foreign = nkeys.encode_seed(bytes(32), nkeys.PREFIX_BYTE_USER)
    imported = keystore.import_seed("foreign", foreign.decode() + "\n", PASSWORD, NOW_MS)
    assert imported.address == nkeys.from_seed(foreign).public_key.decode()


def test_list(keystore: Keystore, directory: Path) -> None:
    """The list has every wallet by name with address and time, without a password; other files do not disturb it."""
    assert keystore.wallets().wallets == ()
    made = [keystore.create(name, PASSWORD, NOW_MS + k) for k, name in enumerate(("carol", "alice", "b.json"))]
    (directory / ".alice.json.x.tmp").write_text("left by a crash")
    (directory / "README").write_text("notes")
    listing = keystore.wallets()
    assert listing.wallets == tuple(sorted(made, key=lambda wallet: wallet.name))
    assert listing.faults == ()
    assert Wallet(name="carol", address=made[0].address, created_ms=NOW_MS) in listing.wallets


def test_one_bad_file_hides_nothing(keystore: Keystore, directory: Path) -> None:
    """A damaged or open file is reported beside the wallets that are in order."""
    good = keystore.create("good", PASSWORD, NOW_MS)
    keystore.create("cut", PASSWORD, NOW_MS)
    (directory / "cut.json").write_bytes((directory / "cut.json").read_bytes()[:-20])
    keystore.create("open", PASSWORD, NOW_MS)
    (directory / "open.json").chmod(0o644)
    listing = keystore.wallets()
    assert listing.wallets == (good,)
    assert [type(fault) for fault in listing.faults] == [CorruptKeystore, InsecurePermissions]


def test_change_password(keystore: Keystore, directory: Path) -> None:
    """The new password opens the wallet, the old one no longer does; key, address and time stay."""
    wallet = keystore.create("alice", PASSWORD, NOW_MS)
    before = (directory / "alice.json").read_bytes()
    keystore.change_password("alice", PASSWORD, OTHER_PASSWORD)
    assert keystore.unlock("alice", OTHER_PASSWORD).address == wallet.address
    assert keystore.wallets().wallets == (wallet,)
    with pytest.raises(BadPassword):
        keystore.unlock("alice", PASSWORD)
    after = json.loads((directory / "alice.json").read_bytes())
    assert after["label"]["derivation"]["salt"] != json.loads(before)["label"]["derivation"]["salt"]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [(OTHER_PASSWORD, "Another-Good-1", BadPassword), (PASSWORD, "short", WeakPassword)],
)
def test_change_refused(keystore: Keystore, directory: Path, old: str, new: str, error: type[KeystoreError]) -> None:
    """A refused change leaves the file as it was."""
    keystore.create("alice", PASSWORD, NOW_MS)
    before = (directory / "alice.json").read_bytes()
    with pytest.raises(error):
        keystore.change_password("alice", old, new)
    assert (directory / "alice.json").read_bytes() == before


def test_nothing_is_overwritten(keystore: Keystore, directory: Path) -> None:
    """A second wallet of the same name is refused, and the first is untouched."""
    keystore.create("alice", PASSWORD, NOW_MS)
    before = (directory / "alice.json").read_bytes()
    with pytest.raises(WalletExists):
        keystore.create("alice", PASSWORD, NOW_MS)
    with pytest.raises(WalletExists):
        keystore.import_seed("alice", KEY.seed_text(), PASSWORD, NOW_MS)
    assert (directory / "alice.json").read_bytes() == before
    assert len(list(directory.iterdir())) == 1


def test_lost_race_overwrites_nothing(tmp_path: Path) -> None:
    """When two writers pass the first check, the second still cannot replace the first one's file."""
    path = tmp_path / "file"
    create_private_file(path, b"first")
    with pytest.raises(FileExistsError):
        create_private_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_failed_write_leaves_the_old_file(keystore: Keystore, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk fails before the new file is safe, the old one stands and nothing else is left."""
    keystore.create("alice", PASSWORD, NOW_MS)
    before = (directory / "alice.json").read_bytes()

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeystoreUnavailable, match="No space left"):
        keystore.change_password("alice", PASSWORD, OTHER_PASSWORD)
    with pytest.raises(KeystoreUnavailable, match="No space left"):
        keystore.create("bob", PASSWORD, NOW_MS)
    assert [(path.name, path.read_bytes()) for path in directory.iterdir()] == [("alice.json", before)]


def test_file_and_directory_are_synced(keystore: Keystore, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content reaches the disk before the name does, and the name before the call returns."""
    synced = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        synced.append((kind, (directory / "alice.json").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    keystore.create("alice", PASSWORD, NOW_MS)
    assert synced == [("file", False), ("directory", True)]


@pytest.mark.parametrize(
    ("password", "missing"),
    [
        ("", ("12 characters", "an upper-case letter", "a lower-case letter", "a digit", "a symbol")),
        ("Short-Pass1", ("12 characters",)),
        ("no-capitals-here-1", ("an upper-case letter",)),
        ("NO-SMALL-LETTERS-1", ("a lower-case letter",)),
        ("No-Digits-At-All", ("a digit",)),
        ("NoSymbolsAtAll123", ("a symbol",)),
        ("onlysmallletters", ("an upper-case letter", "a digit", "a symbol")),
        ("123456789012", ("an upper-case letter", "a lower-case letter", "a symbol")),
    ],
)
def test_weak_password(keystore: Keystore, directory: Path, password: str, missing: tuple[str, ...]) -> None:
    """A weak password is refused with all that it lacks, before anything is written."""
    with pytest.raises(WeakPassword) as caught:
        keystore.create("alice", password, NOW_MS)
    assert caught.value.missing == missing
    assert caught.value.data["missing"] == missing
    assert not directory.exists()


@pytest.mark.parametrize("password", [PASSWORD, "Twelve Chars1", "Grüße-an-Ödön-3", "Abcdefghij1\udc80"])
def test_strong_password(keystore: Keystore, password: str) -> None:
    """A password with all four kinds is taken, in any script, and even where a terminal sent bytes that are no text."""
    check_password(password)
    wallet = keystore.create("alice", password, NOW_MS)
    assert keystore.unlock("alice", password).address == wallet.address


def test_spellings_of_one_password(keystore: Keystore) -> None:
    """Letters typed as one character or as letter and accent are the same password."""
    keystore.create("alice", "Grüße-an-Alle-3", NOW_MS)
    assert keystore.unlock("alice", "Gru\u0308ße-an-Alle-3")


@pytest.mark.parametrize(
    "name", ["", "Alice", "../alice", "a/b", ".hidden", "-rf", "a b", "a\n", "é", "a" * 64, "a\0b"]
)
def test_bad_name(keystore: Keystore, directory: Path, name: str) -> None:
    """A name that could leave the directory, or that file systems disagree about, is refused everywhere."""
    calls: list[Callable[[], Any]] = [
        lambda: keystore.create(name, PASSWORD, NOW_MS),
        lambda: keystore.import_seed(name, KEY.seed_text(), PASSWORD, NOW_MS),
        lambda: keystore.unlock(name, PASSWORD),
        lambda: keystore.change_password(name, PASSWORD, OTHER_PASSWORD),
        lambda: keystore.export_seed(name, PASSWORD),
    ]
    for call in calls:
        with pytest.raises(InvalidWalletName):
            call()
    assert not directory.exists()


def test_not_found(keystore: Keystore) -> None:
    """A wallet that does not exist is said not to, also where no keystore is yet."""
    with pytest.raises(WalletNotFound):
        keystore.unlock("alice", PASSWORD)
    keystore.create("bob", PASSWORD, NOW_MS)
    with pytest.raises(WalletNotFound, match=r"alice\.json"):
        keystore.unlock("alice", PASSWORD)


@pytest.mark.parametrize(
    "seed",
    [
        "",
        "SUAA",
        KEY.seed_text()[:-1] + ("A" if KEY.seed_text()[-1] != "A" else "B"),
        KEY.address,
        nkeys.encode_seed(bytes(32), nkeys.PREFIX_BYTE_ACCOUNT).decode(),
    ],
)
def test_bad_seed(keystore: Keystore, directory: Path, seed: str) -> None:
    """What is not a user seed with a right checksum is not imported."""
    with pytest.raises(InvalidKey):
        keystore.import_seed("alice", seed, PASSWORD, NOW_MS)
    assert not directory.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666])
def test_open_file(keystore: Keystore, directory: Path, mode: int) -> None:
    """A wallet on which group or others have any right is refused with its mode and the command that mends it."""
    keystore.create("alice", PASSWORD, NOW_MS)
    path = directory / "alice.json"
    path.chmod(mode)
    with pytest.raises(InsecurePermissions) as caught:
        keystore.unlock("alice", PASSWORD)
    assert caught.value.mode == mode
    assert f"chmod 600 {path}" in caught.value.hint
    path.chmod(0o400)
    assert keystore.unlock("alice", PASSWORD)


def test_open_directory(keystore: Keystore, directory: Path) -> None:
    """A directory that others can enter is refused by every call; one that exists is not made private silently."""
    keystore.create("alice", PASSWORD, NOW_MS)
    directory.chmod(0o755)
    calls: list[Callable[[], Any]] = [
        lambda: keystore.create("bob", PASSWORD, NOW_MS),
        lambda: keystore.unlock("alice", PASSWORD),
        keystore.wallets,
    ]
    for call in calls:
        with pytest.raises(InsecurePermissions, match="755"):
            call()
    assert mode_of(directory) == 0o755


def test_no_directory(tmp_path: Path) -> None:
    """A keystore at the path of a file cannot be used, and says so."""
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(KeystoreUnavailable, match="Not a directory"):
        Keystore(path, CHEAP).create("alice", PASSWORD, NOW_MS)


def change(*keys: str, to: Any) -> Callable[[bytes], bytes]:
    def apply(content: bytes) -> bytes:
        document = json.loads(content)
        target = document
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = to
        return json.dumps(document).encode()

    return apply


COST = ("label", "derivation", "cost")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda content: b"", "truncated"),
        (lambda content: content[: len(content) // 2], "truncated"),
        (lambda content: b"\xff" + content, "malformed"),
        (lambda content: content + b"x", "trailing"),
        (lambda content: b'{"x":' * 3_000, "recursion"),
        (lambda content: b"[]", "Expected `object`"),
        (lambda content: content + b" " * 20_000, "longer than"),
        (change("version", to=2), "its version is 2"),
        (change("version", to="1"), "$.version"),
        (change("extra", to=1), "unknown field `extra`"),
        (change("nonce", to="AAAA"), "$.nonce"),
        (change("sealed", to="?"), "$.sealed"),
        (change("label", "address", to="U"), "$.label.address"),
        (change("label", "name", to="bob"), "'bob'"),
        (change("label", "cipher", to="rot13"), "$.label.cipher"),
        (change("label", "derivation", "algorithm", to="md5"), "algorithm"),
        (change("label", "derivation", "salt", to=""), "salt"),
        (change(*COST, "memory_bytes", to=100 * 2**30), "memory_bytes"),
        (change(*COST, "memory_bytes", to=8_191), "memory_bytes"),
        (change(*COST, "passes", to=2**31), "passes"),
        (change(*COST, "passes", to=0), "passes"),
        (change(*COST, "parallelism", to=2), "parallelism"),
    ],
)
def test_corrupt_file(keystore: Keystore, directory: Path, damage: Callable[[bytes], bytes], why: str) -> None:
    """A file that is cut, damaged or of another version, or that asks for absurd work, is refused with the reason."""
    keystore.create("alice", PASSWORD, NOW_MS)
    path = directory / "alice.json"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CorruptKeystore) as caught:
        keystore.unlock("alice", PASSWORD)
    assert why.lower() in caught.value.why.lower()
    assert str(path) in caught.value.what


@pytest.mark.parametrize(
    "damage",
    [
        change("label", "address", to=KEY.address),
        change("label", "created_ms", to=NOW_MS + 1),
        change(*COST, "passes", to=2),
        change(*COST, "memory_bytes", to=8_193),
        change("label", "derivation", "salt", to="A" * 22 + "=="),
        change("nonce", to="A" * 32),
        change("sealed", to="A" * 64),
    ],
)
def test_bound_fields(keystore: Keystore, directory: Path, damage: Callable[[bytes], bytes]) -> None:
    """Address, time, salt and cost are part of what the encryption authenticates: none can be changed."""
    keystore.create("alice", PASSWORD, NOW_MS)
    path = directory / "alice.json"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadPassword):
        keystore.unlock("alice", PASSWORD)


def test_exchanged_files(keystore: Keystore, directory: Path) -> None:
    """One wallet's file under another's name is not opened as the other, though the password fits."""
    for name in ("alice", "bob"):
        keystore.create(name, PASSWORD, NOW_MS)
    (directory / "bob.json").replace(directory / "alice.json")
    with pytest.raises(CorruptKeystore, match="exchanged"):
        keystore.unlock("alice", PASSWORD)
    (directory / "alice.json").write_bytes(change("label", "name", to="alice")((directory / "alice.json").read_bytes()))
    with pytest.raises(BadPassword):
        keystore.unlock("alice", PASSWORD)


def test_false_address(keystore: Keystore, directory: Path) -> None:
    """A file made to show another's address does not open, even by the one who knows its password."""
    keystore.create("bob", PASSWORD, NOW_MS)
    liar = Key(bytes(32))
    liar.address = KEY.address
    path = directory / "alice.json"
    create_private_file(path, seal(liar, "alice", PASSWORD, NOW_MS, CHEAP, path))
    with pytest.raises(CorruptKeystore, match="not the key of the address"):
        keystore.unlock("alice", PASSWORD)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(st.data())
def test_tampering_never_yields_another_key(directory: Path, data: st.DataObject) -> None:
    """Changing, adding or removing any byte gives a typed error or the very same key, never a different one."""
    keystore = Keystore(directory, CHEAP)
    path = directory / "alice.json"
    path.unlink(missing_ok=True)
    wallet = keystore.import_seed("alice", KEY.seed_text(), PASSWORD, NOW_MS)
    content = path.read_bytes()
    position = data.draw(st.integers(0, len(content) - 1))
    replacement = data.draw(st.binary(max_size=2))
    path.write_bytes(content[:position] + replacement + content[position + 1 :])
    try:
        key = keystore.unlock("alice", PASSWORD)
    except KeystoreError:
        pass
    else:
        assert key.address == wallet.address
    listing = keystore.wallets()
    assert len(listing.wallets) + len(listing.faults) == 1


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["directory", "pipe"])
def test_not_a_file(keystore: Keystore, directory: Path, make: Callable[[Path], None]) -> None:
    """A directory or a pipe in place of a wallet is refused at once, without waiting for a writer."""
    keystore.create("bob", PASSWORD, NOW_MS)
    make(directory / "alice.json")
    with pytest.raises(KeystoreUnavailable, match="not a regular file"):
        keystore.unlock("alice", PASSWORD)


def test_unreadable_is_never_written(directory: Path) -> None:
    """A cost or a time that no reader would accept is noticed before a file, and a key, is lost."""
    with pytest.raises(msgspec.ValidationError):
        Keystore(directory, DerivationCost(passes=17, memory_bytes=8_192)).create("alice", PASSWORD, NOW_MS)
    with pytest.raises(msgspec.ValidationError):
        Keystore(directory, CHEAP).create("alice", PASSWORD, -1)
    assert list(directory.iterdir()) == []


def test_too_little_memory(keystore: Keystore, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A derivation that cannot have its memory is not mistaken for a wrong password."""
    keystore.create("alice", PASSWORD, NOW_MS)

    def fail(*_arguments: Any, **_options: Any) -> bytes:
        raise nacl.exceptions.RuntimeError("failed to allocate memory")

    monkeypatch.setattr(nacl.pwhash.argon2id, "kdf", fail)
    with pytest.raises(KeystoreUnavailable, match="Cannot allocate memory"):
        keystore.unlock("alice", PASSWORD)


def test_seed_file(tmp_path: Path) -> None:
    """A seed file is written with mode 0600, read back as the same key, and never overwritten."""
    path = tmp_path / "alice.nk"
    write_seed_file(path, KEY)
    assert mode_of(path) == 0o600
    assert path.read_text() == KEY.seed_text() + "\n"
    assert load_seed_file(path).address == KEY.address
    with pytest.raises(WalletExists):
        write_seed_file(path, Key(bytes(32)))
    assert load_seed_file(path).address == KEY.address
    with pytest.raises(KeystoreUnavailable, match="No such file"):
        write_seed_file(tmp_path / "missing" / "alice.nk", KEY)


@pytest.mark.parametrize(
    "text",
    [
        "{seed}",
        "{seed}\n",
        "\n  {seed}\r\n",
        CREDENTIALS,
    ],
)
def test_seed_files_of_other_tools(tmp_path: Path, text: str) -> None:
    """A seed is read as NKey tools write it: bare, or within NATS credentials."""
    path = tmp_path / "user.nk"
    create_private_file(path, text.format(seed=KEY.seed_text()).encode())
    assert load_seed_file(path).address == KEY.address


@pytest.mark.parametrize(
    "content", [b"", b"\xff\x00", KEY.address.encode(), b"SU" + b"A" * 56, b"x" * 100_000 + KEY.seed_text().encode()]
)
def test_bad_seed_file(tmp_path: Path, content: bytes) -> None:
    """A file without a user seed is refused as such."""
    path = tmp_path / "user.nk"
    create_private_file(path, content)
    with pytest.raises(InvalidKey):
        load_seed_file(path)


def test_seed_file_refusals(tmp_path: Path) -> None:
    """A seed file must exist and be private."""
    path = tmp_path / "user.nk"
    with pytest.raises(WalletNotFound, match="seed file does not exist") as caught:
        load_seed_file(path)
    assert f"assay wallet new-seed {path}" in caught.value.hint
    write_seed_file(path, KEY)
    path.chmod(0o644)
    with pytest.raises(InsecurePermissions):
        load_seed_file(path)


def test_wipe() -> None:
    """Wiping clears the buffer itself, also through other views of it."""
    secret = bytearray(b"secret")
    view = memoryview(secret)
    wipe(secret)
    assert bytes(view) == bytes(6)


def test_errors_say_everything(keystore: Keystore, directory: Path) -> None:
    """Every error has its own code, and says what, why and how to mend it."""
    path = directory / "alice.json"
    errors = [
        WalletNotFound(path),
        WalletExists(path),
        InvalidWalletName("A"),
        WeakPassword(("a digit",)),
        BadPassword(path),
        CorruptKeystore(path, "because"),
        InsecurePermissions(path, 0o644),
        KeystoreUnavailable(path, OSError(5, "Input/output error")),
    ]
    assert len({error.code for error in errors}) == len(errors) == len(KeystoreError.__subclasses__())
    for error in errors:
        assert error.what, error.code
        assert error.why, error.code
        assert error.hint, error.code
