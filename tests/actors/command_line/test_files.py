"""Context, settings of real hosts, schemas, and running one actor."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from structlog.testing import capture_logs

from actors.command_line import local
from actors.command_line.context import Context, home, load_context, local_home, place_of, save_context
from actors.command_line.local import leave, running_here
from actors.command_line.options import Network
from actors.devnet import Devnet
from actors.devnet_files import Files, Plan
from actors.profiles import DEVNET, TESTNET
from actors.readiness import VARIABLE, ReadinessListener, say_ready
from actors.roles import ROLES, MinerTable, WalletTable, attester_of
from actors.settings import load_settings
from actors.wallet_policy import load_policy
from events.errors import BadInput
from events.keys import Key
from schemas.genesis import Genesis
from tests.actors.command_line.devnet_process import ROOT

DEPLOY = ROOT / "deploy"
PROPOSER = Key(bytes(32)).address


def test_a_flag_comes_before_the_context(home: Path) -> None:
    """What a flag names wins; the rest is the context's."""
    context = Context(url="nats://one:1", chain="one")
    save_context(local_home(), context)
    assert load_context() == context
    place = place_of(Network(chain="two"))
    assert (place.url, place.chain) == ("nats://one:1", "two")


def test_a_context_that_cannot_be_read_is_an_error(home: Path) -> None:
    """A damaged context is named, not ignored."""
    local_home().mkdir()
    (local_home() / "context.json").write_text("{")
    with pytest.raises(BadInput, match="not a context"):
        load_context()


def test_the_home_is_that_of_the_directory_then_that_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$ASSAY_HOME wins, then .assay of the directory where there is one, then ~/.assay."""
    monkeypatch.delenv("ASSAY_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)
    assert home() == tmp_path / "user" / ".assay"
    (tmp_path / ".assay").mkdir()
    assert home() == tmp_path / ".assay"
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "named"))
    assert home() == tmp_path / "named"


@pytest.mark.parametrize("role", ROLES)
def test_the_settings_for_real_hosts_are_read(role: str) -> None:
    """Every role has a file in deploy/ that its actor accepts, with its own section."""
    settings = load_settings({}, {}, (DEPLOY / f"{role}.toml",))
    assert settings.genesis == "/etc/assay/genesis.json"
    if role == "miner":
        assert settings.table("miner", MinerTable).unit_price == 1_000
    if role == "wallet":
        assert settings.table("wallet", WalletTable).policy == "/etc/assay/policy.toml"


def test_the_policy_for_real_hosts_is_read() -> None:
    """The policy in deploy/ is one that the wallet accepts."""
    policy = load_policy(DEPLOY / "policy.toml")
    assert policy.request_limit < policy.daily_limit
    assert policy.recipients == ()


def test_the_schemas_are_exported(assay: Any, home: Path) -> None:
    """`schemas export` writes a JSON document per record, and tells which."""
    ended = assay("schemas", "export", "schemas", "-o", "json")
    files = [Path(entry["file"]) for entry in json.loads(ended.out)]
    assert Path("schemas/job.submitted.json") in files
    assert all(json.loads(file.read_bytes()) for file in files)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--chain", "devnet"), "no genesis"),
        ((), "no settings for the miner"),
        (("--chain", "devnet", "--genesis", "nowhere.json"), "cannot be read"),
        (("--settings", "nowhere.toml"), "nowhere.toml"),
        (("--chain", "devnet", "--log-level", "loud", "--genesis", "nowhere.json"), "not a log level"),
    ],
)
def test_an_actor_that_cannot_start_says_why(assay: Any, words: tuple[str, ...], said: str) -> None:
    """`run` names the setting that is missing or wrong, with exit code 2."""
    ended = assay("run", "miner", *words)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("capacityy = 1", "unknown field `capacityy`"),
        ("capacityy = 1", "hint: Known are name, capacity, "),
        ('memory_mib = "lots"', "`$.memory_mib`"),
        ('services = ["matmul.int9"]', "'matmul.int9' is not a service"),
    ],
)
def test_a_section_is_read_before_the_network_is_asked(assay: Any, home: Path, section: str, said: str) -> None:
    """A slip in an actor's section ends it at once, though no server answers."""
    (home / "miner.toml").write_text(f'url = "nats://127.0.0.1:1"\nchain = "devnet"\n[miner]\n{section}\n')
    words = ("--chain", "devnet", "--proposer", PROPOSER, "--coordinator", PROPOSER)
    assert assay("genesis", "new", "genesis.json", *words).code == 0
    ended = assay("run", "miner", "--genesis", "genesis.json")
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err


@pytest.mark.parametrize(
    ("trust", "attest", "said"),
    [
        (TESTNET, "auto", ["the backend is cpu, so there is nothing to attest"]),
        (TESTNET, "off", ["attest is off"]),
        (DEVNET, "auto", []),
        (msgspec.UNSET, "auto", []),
    ],
)
def test_a_miner_that_a_chain_gives_no_jobs_says_so(trust: Any, attest: Any, said: list[str]) -> None:
    """Where points are asked for and none can be had, the log of the miner names both."""
    host: Any = SimpleNamespace(genesis=SimpleNamespace(parameters=SimpleNamespace(trust=trust)))
    with capture_logs() as logged:
        assert attester_of(host, MinerTable(attest=attest)) is None
    assert [entry["why"] for entry in logged if entry["log_level"] == "warning"] == said


async def test_a_process_says_when_it_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """READY=1 with the process id reaches the socket that NOTIFY_SOCKET names."""
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    heard: asyncio.Queue[int] = asyncio.Queue()
    transport = await ReadinessListener.open(Path("notify"), heard.put_nowait)
    try:
        say_ready({VARIABLE: "notify"})
        async with asyncio.timeout(5):
            assert await heard.get() > 0
    finally:
        transport.close()
    await asyncio.sleep(0)


@pytest.mark.parametrize("environment", [{}, {VARIABLE: ""}, {VARIABLE: "/nowhere/notify"}])
def test_nobody_who_listens_is_no_error(environment: dict[str, str]) -> None:
    """Without a listener a process starts all the same."""
    assert say_ready(environment) is None


def test_a_devnet_keeps_its_keys_and_its_genesis(tmp_path: Path) -> None:
    """Made again in the same directory, the files are the same network; another shape is refused."""
    plan = Plan(proposers=2, miners=1, extra_clients=2)
    first, second = Files(tmp_path, plan), Files(tmp_path, plan)
    assert first.genesis == second.genesis
    assert {name: key.address for name, key in first.keys.items()} == {
        name: key.address for name, key in second.keys.items()
    }
    assert msgspec.json.decode(first.genesis_file.read_bytes(), type=Genesis) == first.genesis
    assert plan.clients() == ("client", "client-2", "client-3")
    funded = {allocation.address for allocation in first.genesis.allocations}
    assert {first.keys[name].address for name in (*plan.clients(), "wallet", "coordinator", "miner-1")} == funded
    with pytest.raises(BadInput, match="another network"):
        Files(tmp_path, Plan(proposers=3, miners=1))


@pytest.mark.parametrize("proposers", [0, 8])
def test_a_devnet_has_one_to_seven_proposers(tmp_path: Path, proposers: int) -> None:
    """The bounds of a chain are those of its genesis."""
    with pytest.raises(BadInput, match="proposers"):
        Files(tmp_path, Plan(proposers=proposers))


@pytest.mark.parametrize(
    ("thrown_away", "url", "stays"), [(True, "nats://one:1", False), (True, "nats://two:2", True), (False, "", True)]
)
def test_a_devnet_removes_only_its_own_context(home: Path, thrown_away: bool, url: str, stays: bool) -> None:
    """A second network in the same directory keeps its context when the first ends; so does one that is kept."""
    context = save_context(local_home(), Context(url="nats://one:1", chain="devnet"))
    leave(context, cast("Devnet", SimpleNamespace(thrown_away=thrown_away, url=url)))
    assert context.exists() == stays


async def test_the_network_that_a_second_one_hid_is_found_again(home: Path) -> None:
    """Of two networks in one directory the second is found; after its end, the first, if its server still listens."""
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    first = Context(url=f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", chain="devnet")
    second = cast("Devnet", SimpleNamespace(thrown_away=True, url="nats://two:2"))
    save_context(local_home(), first)
    assert await running_here(first.url) is None
    assert await running_here(second.url) == first
    context = save_context(local_home(), Context(url=second.url, chain="devnet"))
    leave(context, second, await running_here(second.url, first))
    assert load_context(local_home()) == first
    server.close()
    await server.wait_closed()
    assert await running_here(second.url) is None


@pytest.mark.parametrize(
    ("program", "found", "expected"),
    [
        ("{home}/.venv/bin/assay", None, ".venv/bin/assay"),
        ("{home}/.venv/bin/assay", "/usr/bin/assay", "assay"),
        ("{home}/actors/command_line/__main__.py", None, "assay"),
    ],
)
def test_the_next_steps_can_be_typed_as_they_stand(
    home: Path, monkeypatch: pytest.MonkeyPatch, program: str, found: str | None, expected: str
) -> None:
    """Where PATH does not find the command, the banner names its place."""
    monkeypatch.setattr(local.sys, "argv", [program.format(home=home)])
    monkeypatch.setattr(local.shutil, "which", lambda _name: found)
    assert local.command_here() == expected


def test_secrets_of_a_devnet_are_private(tmp_path: Path) -> None:
    """Seeds are readable by their owner alone."""
    files = Files(tmp_path, Plan(proposers=1, miners=1))
    assert all(files.seed_file(name).stat().st_mode & 0o077 == 0 for name in files.keys)
