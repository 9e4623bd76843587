"""`assay wallet …`: without a network, without a terminal, and without a secret on the command line."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from actors.command_line import secrets
from actors.command_line.options import Consent, Signer
from actors.keystore import Keystore, load_seed_file, write_seed_file
from actors.wallet_file import DerivationCost
from events.envelope import read, sign
from events.errors import BadInput, NotAllowed
from events.keys import Key
from schemas.events import TransferSent

PASSWORD = "Correct horse 7 battery"
KEY = Key(bytes(32))
OTHER = Key(bytes([1]) * 32)
CHEAP = DerivationCost(passes=1, memory_bytes=8_192)


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A derivation that takes no time."""
    monkeypatch.setattr(secrets, "Keystore", lambda directory: Keystore(directory, CHEAP))


@pytest.fixture
def password_file(home: Path) -> Path:
    path = home / "password"
    path.write_text(PASSWORD + "\n")
    return path


def answer(ended: Any) -> Any:
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def test_a_wallet_goes_its_whole_way(assay: Any, password_file: Path, home: Path) -> None:
    """Create, list, address, export, import, change the password: the key stays the same."""
    made = answer(assay("wallet", "create", "main", "--password-file", password_file, "-o", "json"))
    assert [entry["name"] for entry in answer(assay("wallet", "list", "-o", "json"))] == ["main"]
    assert assay("wallet", "address", "main").out == made["address"] + "\n"
    exported = assay("wallet", "export", "main", home / "main.seed", "--password-file", password_file)
    assert exported.code == 0
    assert load_seed_file(home / "main.seed").address == made["address"]
    again = answer(
        assay("wallet", "import", "copy", home / "main.seed", "--password-file", password_file, "-o", "json")
    )
    assert again["address"] == made["address"]
    (home / "new").write_text("Another 1 of these!\n")
    changed = ("--password-file", password_file, "--new-password-file", home / "new")
    assert assay("wallet", "change-password", "main", *changed).code == 0
    assert assay("wallet", "export", "main", home / "x.seed", "--password-file", password_file).code == 4
    assert assay("wallet", "export", "main", home / "x.seed", "--password-file", home / "new").code == 0


def test_no_secret_is_ever_printed(assay: Any, password_file: Path, home: Path) -> None:
    """Neither seed nor password appears on stdout or stderr."""
    said = []
    for words in (("create", "main"), ("export", "main", home / "main.seed"), ("list",)):
        more = () if words == ("list",) else ("--password-file", password_file)
        ended = assay("wallet", *words, *more)
        said.append(ended.out + ended.err)
    seed = (home / "main.seed").read_text().strip()
    assert seed not in "".join(said)
    assert PASSWORD not in "".join(said)


def test_without_a_terminal_nothing_is_asked(assay: Any) -> None:
    """Where a password is needed and none is given, the error names the ways to give it."""
    ended = assay("wallet", "create", "main")
    assert (ended.code, ended.out) == (4, "")
    assert "--password-file" in ended.err
    assert "ASSAY_PASSWORD_FILE" in ended.err


@pytest.mark.parametrize("way", ["file", "stdin", "variable", "variable of a file"])
def test_a_password_comes_in_four_ways(
    assay: Any, password_file: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """From a file, standard input, ASSAY_PASSWORD, or the file that ASSAY_PASSWORD_FILE names."""
    more: tuple[str, ...] = ()
    if way == "file":
        more = ("--password-file", str(password_file))
    elif way == "stdin":
        more = ("--password-file", "-")
        monkeypatch.setattr(sys, "stdin", io.StringIO(PASSWORD + "\nmore"))
    elif way == "variable":
        monkeypatch.setenv("ASSAY_PASSWORD", PASSWORD)
    else:
        monkeypatch.setenv("ASSAY_PASSWORD_FILE", str(password_file))
    assert assay("wallet", "create", "main", *more).code == 0
    assert secrets.keystore().unlock("main", PASSWORD).address


def test_an_empty_password_file_is_refused(assay: Any, home: Path) -> None:
    """A first line without a password is an input that cannot be used."""
    (home / "empty").write_text("\n")
    assert assay("wallet", "create", "main", "--password-file", home / "empty").code == 2


def test_a_weak_password_names_all_that_is_missing(assay: Any, home: Path) -> None:
    """The rules of passwords hold here too."""
    (home / "weak").write_text("short\n")
    ended = assay("wallet", "create", "main", "--password-file", home / "weak")
    assert ended.code == 2
    assert "12 characters" in ended.err


def test_a_dry_run_of_an_export_writes_nothing(assay: Any, password_file: Path, home: Path) -> None:
    """With --dry-run no seed leaves the wallet."""
    assay("wallet", "create", "main", "--password-file", password_file)
    assert assay("wallet", "export", "main", home / "main.seed", "--dry-run").code == 0
    assert not (home / "main.seed").exists()
    assert assay("wallet", "export", "other", home / "main.seed", "--dry-run").code == 3


def test_a_new_seed_is_private_and_nothing_is_overwritten(assay: Any, home: Path) -> None:
    """`wallet new-seed` makes a key in a file of mode 0600 and says its address; a second time it refuses."""
    made = answer(assay("wallet", "new-seed", "actor.seed", "-o", "json"))
    assert load_seed_file(home / "actor.seed").address == made["address"]
    assert (home / "actor.seed").stat().st_mode & 0o777 == 0o600
    assert assay("wallet", "new-seed", "actor.seed").code == 2
    assert load_seed_file(home / "actor.seed").address == made["address"]


def test_an_event_is_signed_offline(assay: Any, home: Path) -> None:
    """`wallet sign` turns a canonical body into the envelope that any node accepts."""
    write_seed_file(home / "key.seed", KEY)
    event = TransferSent(chain="devnet", sender=KEY.address, nonce=0, gas_price=1, to=OTHER.address, amount=1)
    expected = sign(event, KEY)
    (home / "body.json").write_bytes(expected.body_bytes + b"\n")
    ended = assay("wallet", "sign", "body.json", "--seed-file", "key.seed")
    assert ended.code == 0, ended.err
    assert read(ended.out.strip().encode()) == expected
    both = answer(assay("wallet", "sign", "body.json", "--seed-file", "key.seed", "-o", "json"))
    assert both == {"event": expected.id, "envelope": json.loads(expected.raw)}
    shown = answer(assay("wallet", "sign", "body.json", "--seed-file", "key.seed", "--dry-run", "-o", "json"))
    assert shown["event"] == expected.id
    assert "envelope" not in shown


def test_what_cannot_be_signed_is_refused(assay: Any, home: Path) -> None:
    """Another's event, and a body that is not canonical, are not signed."""
    write_seed_file(home / "other.seed", OTHER)
    event = TransferSent(chain="devnet", sender=KEY.address, nonce=0, gas_price=1, to=OTHER.address, amount=1)
    body = sign(event, KEY).body_bytes
    (home / "body.json").write_bytes(body)
    ended = assay("wallet", "sign", "body.json", "--seed-file", "other.seed")
    assert (ended.code, ended.out) == (4, "")
    (home / "body.json").write_bytes(body.replace(b":", b": ", 1))
    ended = assay("wallet", "sign", "body.json", "--seed-file", "other.seed")
    assert (ended.code, ended.out) == (4, "")
    assert "NOT_CANONICAL" in ended.err


def test_a_file_that_others_can_read_is_refused(assay: Any, home: Path) -> None:
    """A seed file with rights for others is not used."""
    write_seed_file(home / "key.seed", KEY)
    (home / "key.seed").chmod(0o644)
    (home / "body.json").write_bytes(b"{}")
    ended = assay("wallet", "address", "--seed-file", "key.seed")
    assert ended.code == 4
    assert "chmod 600" in ended.err


def test_without_a_key_the_error_says_how_to_name_one(home: Path) -> None:
    """Neither flag nor devnet: the error names both ways."""
    with pytest.raises(NotAllowed, match="no key to sign with"):
        secrets.signing_key(Signer())


def test_a_wallet_signs_with_its_password(assay: Any, password_file: Path, home: Path) -> None:
    """--wallet unlocks by the password; its address needs none."""
    made = answer(assay("wallet", "create", "main", "--password-file", password_file, "-o", "json"))
    assert secrets.own_address(Signer(wallet="main")) == made["address"]
    assert secrets.signing_key(Signer(wallet="main", password_file=password_file)).address == made["address"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "goes_on"), [("y\n", True), ("yes\n", True), ("\n", False), ("n\n", False)])
def test_on_a_terminal_the_question_is_asked(monkeypatch: pytest.MonkeyPatch, typed: str, goes_on: bool) -> None:
    """Only y or yes goes on; nothing was sent otherwise."""
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    monkeypatch.setattr(sys, "stderr", Terminal())
    if goes_on:
        secrets.confirm("Send?", Consent())
    else:
        with pytest.raises(NotAllowed):
            secrets.confirm("Send?", Consent())
    assert "Send? [y/N]" in sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_yes_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --yes a terminal is asked nothing."""
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    monkeypatch.setattr(sys, "stderr", Terminal())
    secrets.confirm("Send?", Consent(yes=True))
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


def test_a_new_password_is_typed_twice(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Two different ones are refused."""
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    monkeypatch.setattr(sys, "stderr", Terminal())
    typed = iter((PASSWORD, "another"))
    monkeypatch.setattr(secrets.getpass, "getpass", lambda *_args, **_named: next(typed))
    with pytest.raises(BadInput, match="differ"):
        secrets.read_password(None, twice=True)
