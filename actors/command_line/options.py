"""Options that several verbs share. A flag comes before the environment, that before the directory's context."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter, validators

Form = Literal["table", "json", "ndjson"]
JobId = Annotated[str, Parameter(help="The id of a job: 64 hexadecimal digits.")]
Address = Annotated[str, Parameter(help="An account: 56 characters that start with U.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Display:
    """How the answer is written."""

    output: Annotated[
        Form,
        Parameter(
            name=["--output", "-o"],
            env_var="ASSAY_OUTPUT",
            help="table for people, json for one document, ndjson for one line per entry.",
        ),
    ] = "table"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Network:
    """Which network, and how long to wait for it."""

    url: Annotated[str | None, Parameter(env_var="ASSAY_URL", help="NATS server; else that of the running devnet.")] = (
        None
    )
    chain: Annotated[str | None, Parameter(env_var="ASSAY_CHAIN", help="Name of the chain.")] = None
    timeout: Annotated[
        int,
        Parameter(
            env_var="ASSAY_TIMEOUT",
            validator=validators.Number(gte=1, lte=3_600),
            help="Seconds to wait for an answer of the network.",
        ),
    ] = 10


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Signer:
    """Whose key signs."""

    wallet: Annotated[str | None, Parameter(env_var="ASSAY_WALLET", help="Name of a wallet in the keystore.")] = None
    seed_file: Annotated[
        Path | None, Parameter(env_var="ASSAY_SEED_FILE", help="Plain NKey seed file (SU…), mode 0600.")
    ] = None
    password_file: Annotated[
        Path | None,
        Parameter(
            env_var="ASSAY_PASSWORD_FILE",
            allow_leading_hyphen=True,
            help="File with the wallet's password; - reads standard input.",
        ),
    ] = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Consent:
    """Before something is signed."""

    dry_run: Annotated[bool, Parameter(negative=(), help="Show what would be done; sign and send nothing.")] = False
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=(), help="Do not ask.")] = False
    gas_price: Annotated[int | None, Parameter(help="Micro-ASY per unit of gas; else the chain's minimum.")] = None


DISPLAY: Final = Display()
NETWORK: Final = Network()
SIGNER: Final = Signer()
CONSENT: Final = Consent()
