"""The settings of an actor's process, and the key that they lead to."""

import io
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from actors.clock import SystemClock, backoff_ms
from actors.keystore import Keystore, write_seed_file
from actors.keystore_errors import BadPassword
from actors.settings import Settings, load_key, load_settings
from actors.wallet_file import DerivationCost
from events.errors import BadInput, NotAllowed
from events.keys import Key

KEY = Key(b"k" * 32)
PASSWORD = "Correct-Horse-7"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_come_before_the_environment_before_files(tmp_path: Path) -> None:
    """Each source fills in what those before it left open."""
    project = write(tmp_path / "assay.toml", 'chain = "of-project"\nurl = "of-project"\nwallet_name = "of-project"\n')
    user = write(
        tmp_path / "user.toml", 'chain = "of-user"\nurl = "of-user"\nwallet_name = "of-user"\nkeystore = "of-user"\n'
    )
    environment = {"ASSAY_CHAIN": "of-environment", "ASSAY_URL": "of-environment", "ASSAY_WALLET_NAME": ""}
    settings = load_settings({"chain": "of-flag", "url": None}, environment, (project, user, tmp_path / "no.toml"))
    assert (settings.chain, settings.url, settings.wallet_name, settings.keystore, settings.data_dir) == (
        "of-flag",
        "of-environment",
        "of-project",
        "of-user",
        ".assay",
    )


def test_a_named_file_wins_over_found_ones(tmp_path: Path) -> None:
    """ASSAY_CONFIG names it; when it is missing, that is an error."""
    found = write(tmp_path / "assay.toml", 'chain = "found"\n')
    named = write(tmp_path / "named.toml", 'chain = "named"\n')
    assert load_settings({}, {"ASSAY_CONFIG": str(named)}, (found,)).chain == "named"
    with pytest.raises(BadInput, match=r"missing\.toml"):
        load_settings({}, {"ASSAY_CONFIG": str(tmp_path / "missing.toml")}, (found,))


def test_numbers_in_the_environment_are_numbers() -> None:
    """A gas price as text becomes an integer; without one it is None."""
    assert load_settings({"chain": "devnet"}, {"ASSAY_GAS_PRICE": "12"}).gas_price == 12
    assert load_settings({"chain": "devnet"}, {}).gas_price is None


@pytest.mark.parametrize(
    ("flags", "environment", "text", "why"),
    [
        ({}, {}, "", "chain"),
        ({"chain": "Bad.Chain"}, {}, "", "chain"),
        ({"chain": "devnet"}, {"ASSAY_GAS_PRICE": "much"}, "", "gas_price"),
        ({"chain": "devnet"}, {}, 'colour = "red"', "colour"),
        ({"chain": "devnet"}, {}, "chain = ", "assay.toml"),
        ({"chain": "devnet"}, {}, "url = 4", "url"),
    ],
)
def test_wrong_settings_are_named(
    tmp_path: Path, flags: dict[str, Any], environment: dict[str, str], text: str, why: str
) -> None:
    """The message says which setting or file it is."""
    with pytest.raises(BadInput, match=why):
        load_settings(flags, environment, (write(tmp_path / "assay.toml", text),))


class Offer(Struct, forbid_unknown_fields=True):
    capacity: int = 1


def test_an_actors_own_table(tmp_path: Path) -> None:
    """It is read as the actor's record; without one the defaults hold; a wrong one names the table."""
    path = write(tmp_path / "assay.toml", 'chain = "devnet"\n[miner]\ncapacity = 3\n[wallet_policy]\nx = 1\n')
    settings = load_settings({}, {}, (path,))
    assert settings.table("miner", Offer).capacity == 3
    assert settings.table("coordinator", Offer).capacity == 1
    with pytest.raises(BadInput, match="wallet_policy"):
        settings.table("wallet_policy", Offer)


def test_each_actor_and_address_has_its_own_store() -> None:
    """Paths of stores differ by actor and by address."""
    settings = Settings(chain="devnet", data_dir="/data")
    assert settings.store_path("miner", KEY.address) == Path("/data") / f"miner-{KEY.address}.db"


def test_a_key_from_a_seed_file(tmp_path: Path) -> None:
    """A plain NKey seed file is enough."""
    write_seed_file(tmp_path / "seed", KEY)
    assert load_key(Settings(chain="devnet", seed_file=str(tmp_path / "seed")), {}).address == KEY.address


@pytest.mark.parametrize("source", ["file", "environment", "stdin"])
def test_a_key_from_a_keystore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """The password comes from a file, the environment or standard input; a wrong one opens nothing."""
    keystore = Keystore(tmp_path / "keys", DerivationCost(passes=1, memory_bytes=8_192))
    keystore.import_seed("main", KEY.seed_text(), PASSWORD, 0)
    in_file = str(write(tmp_path / "password", PASSWORD + "\n"))
    password_file = {"file": in_file, "environment": "", "stdin": "-"}[source]
    monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD + "\n"))
    settings = Settings(
        chain="devnet", keystore=str(tmp_path / "keys"), wallet_name="main", password_file=password_file
    )
    environment = {"ASSAY_PASSWORD": PASSWORD} if source == "environment" else {}
    assert load_key(settings, environment).address == KEY.address
    with pytest.raises(BadPassword):
        load_key(
            Settings(chain="devnet", keystore=str(tmp_path / "keys"), wallet_name="main"),
            {"ASSAY_PASSWORD": "Wrong-Horse-77"},
        )


def test_no_key_is_an_error_that_says_how_to_give_one(tmp_path: Path) -> None:
    """Neither file nor wallet, no password, and a password file that is missing."""
    with pytest.raises(NotAllowed) as caught:
        load_key(Settings(chain="devnet"), {})
    assert "ASSAY_SEED_FILE" in caught.value.hint
    with pytest.raises(NotAllowed, match="no password"):
        load_key(Settings(chain="devnet", keystore="x", wallet_name="main"), {})
    missing = str(tmp_path / "missing")
    with pytest.raises(BadInput, match="missing"):
        load_key(Settings(chain="devnet", keystore="x", wallet_name="main", password_file=missing), {})


async def test_the_clock_of_the_host() -> None:
    """It tells milliseconds and sleeps at least as long as it says."""
    clock = SystemClock()
    before_ms = clock.now_ms()
    await clock.sleep_ms(20)
    await clock.sleep_ms(-5)
    assert clock.now_ms() - before_ms >= 19
    assert before_ms > 1_600_000_000_000


def test_delays_double_up_to_a_limit() -> None:
    """The first failure waits a tenth of a second, no failure longer than five."""
    assert [backoff_ms(attempt) for attempt in (0, 1, 2, 5, 6, 10_000)] == [100, 200, 400, 3_200, 5_000, 5_000]
