"""``assay genesis new|show``: the file whose hash is the identity of a chain."""

import re
import time
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from cyclopts import Parameter
from msgspec import UnsetType
from msgspec.structs import replace

from actors.command_line.amounts import micro_of, moment
from actors.command_line.options import DISPLAY, Display
from actors.command_line.output import Output, asy, check_target, plain
from actors.devnet_files import PARAMETERS
from actors.profiles import PROFILES
from events.blocks import decode_genesis, genesis_hash
from events.canonical import canonical
from events.errors import BadInput
from events.keys import public_key_of
from schemas.genesis import Allocation, Genesis, GenesisValidator

RULES: Final = 1
MOST_PROPOSERS: Final = 7
_CHAIN: Final = re.compile(r"[a-z][a-z0-9-]{1,30}[a-z0-9]")

File = Annotated[Path, Parameter(help="The genesis file.")]


def new(
    file: Annotated[Path, Parameter(help="A new file.")],
    /,
    *,
    chain: Annotated[str, Parameter(help="Name of the chain: 3 to 32 small letters, digits and dashes.")],
    proposer: Annotated[list[str], Parameter(negative=(), help="Address of a proposer; repeat it, 1 to 7 times.")],
    coordinator: Annotated[list[str], Parameter(negative=(), help="Address of a coordinator; repeat it.")],
    fund: Annotated[
        list[str] | None, Parameter(negative=(), help="ADDRESS=AMOUNT, a balance from the start; repeat it.")
    ] = None,
    faucet: Annotated[bool, Parameter(negative=(), help="Coins for whoever asks: for a test network.")] = False,
    profile: Annotated[
        Literal["devnet", "testnet", "mainnet"],
        Parameter(help="What is asked of miners: nothing, 60 points and 12 GiB, or 70 points, 16 GiB and a bond."),
    ] = "devnet",
    display: Display = DISPLAY,
) -> None:
    """Make the genesis of a network of your own. Everyone who takes part needs this very file. Coordinators
    pay a fee for what they say in vain, and miners one to register: fund them. The other parameters are those of a
    devnet; change them in the file before the first start, since its hash is the identity of the chain."""
    if _CHAIN.fullmatch(chain) is None:
        hint = "3 to 32 small letters, digits and dashes; a letter first, no dash last."
        raise BadInput(f"{chain!r} cannot be the name of a chain", hint=hint)
    if len(proposer) > MOST_PROPOSERS:
        raise BadInput(f"{len(proposer)} proposers", hint=f"A chain has 1 to {MOST_PROPOSERS} of them.")
    if faucet and profile == "mainnet":
        raise BadInput(
            "a main network with a faucet",
            why="whoever asks would get coins that others have to earn",
            hint="Leave out --faucet, or take --profile testnet.",
        )
    parameters = replace(PARAMETERS, trust=PROFILES[profile])
    closed = replace(parameters, faucet_request=0, faucet_day=0, faucet_total=0)
    balances = dict(_funded(entry) for entry in fund or [])
    if len(balances) < len(fund or []):
        raise BadInput("an address is funded twice", hint="Name each address once.")
    genesis = Genesis(
        chain=chain,
        time_ms=time.time_ns() // 1_000_000,
        rules=RULES,
        parameters=parameters if faucet else closed,
        allocations=tuple(Allocation(address=name, balance=amount) for name, amount in sorted(balances.items())),
        validators=tuple(GenesisValidator(address=address, power=1) for address in _addresses("proposer", proposer)),
        coordinators=_addresses("coordinator", coordinator),
    )
    check_target(file)
    with file.open("xb") as opened:
        opened.write(msgspec.json.format(canonical(genesis), indent=2) + b"\n")
    _show(Output(display), genesis)


def _addresses(role: str, given: list[str]) -> tuple[str, ...]:
    for address in given:
        public_key_of(address)
    if len(set(given)) < len(given):
        raise BadInput(f"a {role} is named twice", hint="Every process has a key of its own.")
    return tuple(sorted(given))


def _funded(entry: str) -> tuple[str, int]:
    address, separator, amount = entry.partition("=")
    if not separator:
        raise BadInput(f"{entry!r} funds nobody", hint="Write ADDRESS=AMOUNT, as U…=1000 for 1,000 ASY.")
    public_key_of(address)
    return address, micro_of(amount)


def show(file: File, /, *, display: Display = DISPLAY) -> None:
    """What a genesis says, and its hash; compare that with the others who take part."""
    _show(Output(display), decode_genesis(file.read_bytes()))


def _show(output: Output, genesis: Genesis) -> None:
    supply = sum(entry.balance for entry in genesis.allocations)
    faucet = genesis.parameters.faucet_total
    trust = genesis.parameters.trust
    facts = {
        "chain": genesis.chain,
        "hash": genesis_hash(genesis),
        "time": moment(genesis.time_ms),
        "proposers": "\n".join(f"{entry.address}, power {entry.power}" for entry in genesis.validators),
        "coordinators": "\n".join(genesis.coordinators),
        "supply": f"{asy(supply)} on {len(genesis.allocations)} accounts",
        "faucet": asy(faucet) if faucet else "none",
        "miners": "anybody, without exams and bonds"
        if isinstance(trust, UnsetType)
        else f"{trust.min_score} points, {trust.min_memory_mib} MiB, {trust.min_performance} giga-operations/s, "
        f"a bond of {asy(trust.min_bond)}; at {trust.ban_after} wrong results the ban",
    }
    output.one({"hash": genesis_hash(genesis), "genesis": plain(genesis)}, facts)
