"""What a devnet consists of on disk: keys, genesis, and a settings file for each of its actors.

genesis.json                the chain's identity
keys/<name>.seed            NKey seeds: client, wallet, proposer-1, …, coordinator, miner-1, …
settings/<name>.toml        what `assay run` is given
policy.toml                 what the wallet may sign
data/<name>/                stores and read models
logs/<name>.log             what each process says
nats/                       the log itself, blobs and feeds
"""

import secrets
import time
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from actors.keystore import load_seed_file, write_seed_file
from actors.private_file import make_private_directory
from actors.profiles import DEVNET
from events.blocks import decode_genesis
from events.canonical import canonical
from events.errors import BadInput
from events.keys import Key
from schemas.genesis import Allocation, Genesis, GenesisValidator, Parameters
from schemas.values import MICRO_PER_ASY

CHAIN: Final = "devnet"
CLIENT: Final = "client"
WALLET: Final = "wallet"
COORDINATOR: Final = "coordinator"

PARAMETERS: Final = Parameters(
    min_gas_price=1,
    max_block_bytes=2_097_152,
    max_block_events=5_000,
    max_block_gas=1_000_000_000,
    min_block_interval_ms=10,
    round_timeout_ms=1_000,
    max_drift_ms=10_000,
    fee_burn_bps=5_000,
    coordinator_bps=500,
    max_attempts=3,
    reveal_timeout_ms=60_000,
    verify_timeout_ms=60_000,
    max_timeout_ms=3_600_000,
    max_lifetime_ms=86_400_000,
    faucet_request=100 * MICRO_PER_ASY,
    faucet_day=1_000 * MICRO_PER_ASY,
    faucet_total=1_000_000 * MICRO_PER_ASY,
    trust=DEVNET,
)
BALANCES: Final = {CLIENT: 1_000, WALLET: 1_000, COORDINATOR: 100, "miner": 100}
UNIT_PRICES: Final = (1_000, 1_200)


class Plan(Struct, frozen=True, kw_only=True):
    """How many of each, on which terms. ``extra_clients`` are funded like the client: client-2, client-3, …

    ``replicas`` is on how many servers of a cluster the streams are kept. ``attest`` is what miners have attested.
    """

    proposers: int = 3
    miners: int = 2
    wallet: bool = True
    capacity: int = 1
    extra_clients: int = 0
    parameters: Parameters = PARAMETERS
    log_level: str = "info"
    replicas: int = 1
    attest: str = "auto"

    def clients(self) -> tuple[str, ...]:
        """Names of the funded clients, the first first."""
        return (CLIENT, *(f"{CLIENT}-{number}" for number in range(2, self.extra_clients + 2)))

    def actors(self) -> tuple[str, ...]:
        """Names of the processes beside the NATS server, in the order of their start."""
        proposers = tuple(f"proposer-{number}" for number in range(1, self.proposers + 1))
        miners = tuple(f"miner-{number}" for number in range(1, self.miners + 1))
        return (*proposers, COORDINATOR, *miners, *((WALLET,) if self.wallet else ()))


class Files:
    """The files below ``directory``: made where they are missing, used where they are there."""

    def __init__(self, directory: Path, plan: Plan) -> None:
        """Raises BadInput when the directory holds a devnet of another shape, or something else."""
        if not 1 <= plan.proposers <= 7:
            raise BadInput(f"{plan.proposers} proposers", hint="A chain has 1 to 7 of them.")
        self.directory: Final = directory.resolve()
        self.plan: Final = plan
        for name in ("keys", "settings", "data", "logs"):
            make_private_directory(self.directory / name)
        self.keys: Final = {name: self._key(name) for name in dict.fromkeys((*plan.clients(), WALLET, *plan.actors()))}
        self.genesis: Final = self._genesis()

    @property
    def genesis_file(self) -> Path:
        return self.directory / "genesis.json"

    def seed_file(self, name: str) -> Path:
        """Of an actor or a client."""
        return self.directory / "keys" / f"{name}.seed"

    def settings_file(self, name: str) -> Path:
        """Of an actor."""
        return self.directory / "settings" / f"{name}.toml"

    def log_file(self, name: str) -> Path:
        """Of an actor."""
        return self.directory / "logs" / f"{name}.log"

    def _key(self, name: str) -> Key:
        path = self.seed_file(name)
        if not path.exists():
            write_seed_file(path, Key(secrets.token_bytes(32)))
        return load_seed_file(path)

    def _genesis(self) -> Genesis:
        if self.genesis_file.exists():
            genesis = decode_genesis(self.genesis_file.read_bytes())
            validators = tuple(validator.address for validator in genesis.validators)
            if validators != self._proposers() or self.keys[COORDINATOR].address not in genesis.coordinators:
                raise BadInput(
                    f"{self.directory} holds another network",
                    why=f"its genesis has {len(validators)} proposers, {self.plan.proposers} are asked for",
                    hint="Start it with the same --proposers, or choose another directory.",
                )
            return genesis
        genesis = self._new_genesis()
        self.genesis_file.write_bytes(msgspec.json.format(canonical(genesis), indent=2) + b"\n")
        return genesis

    def _proposers(self) -> tuple[str, ...]:
        names = [name for name in self.plan.actors() if name.startswith("proposer-")]
        return tuple(sorted(self.keys[name].address for name in names))

    def _new_genesis(self) -> Genesis:
        balances = {
            key.address: BALANCES[name.partition("-")[0]] * MICRO_PER_ASY
            for name, key in self.keys.items()
            if name.partition("-")[0] in BALANCES
        }
        return Genesis(
            chain=CHAIN,
            time_ms=time.time_ns() // 1_000_000,
            rules=1,
            parameters=self.plan.parameters,
            allocations=tuple(Allocation(address=name, balance=amount) for name, amount in sorted(balances.items())),
            validators=tuple(GenesisValidator(address=address, power=1) for address in self._proposers()),
            coordinators=(self.keys[COORDINATOR].address,),
        )

    def write_settings(self, url: str) -> None:
        """Writes the settings of all actors anew: the server may listen on another port than before."""
        (self.directory / "policy.toml").write_text(
            f"request_limit = {100 * MICRO_PER_ASY}\ndaily_limit = {500 * MICRO_PER_ASY}\n", encoding="utf-8"
        )
        for name in self.plan.actors():
            kind, _, number = name.partition("-")
            lines: dict[str, str | int] = {
                "chain": CHAIN,
                "url": url,
                "data_dir": str(self.directory / "data" / name),
                "genesis": str(self.genesis_file),
                "seed_file": str(self.seed_file(name)),
                "log_level": self.plan.log_level,
                "replicas": self.plan.replicas,
            }
            table: dict[str, str | int] = {}
            if kind == "miner":
                price = UNIT_PRICES[(int(number) - 1) % len(UNIT_PRICES)]
                table = {"name": name, "capacity": self.plan.capacity, "unit_price": price, "attest": self.plan.attest}
            elif kind == WALLET:
                table = {"policy": str(self.directory / "policy.toml")}
            self.settings_file(name).write_text(_toml(lines) + (f"\n[{kind}]\n" + _toml(table) if table else ""))


def _toml(values: dict[str, str | int]) -> str:
    """Lines of TOML; a JSON string is a TOML string too."""
    return "".join(f"{name} = {msgspec.json.encode(value).decode()}\n" for name, value in values.items())
