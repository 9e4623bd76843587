"""The settings of an actor's process: flags, then the environment, then TOML files, then defaults.

    url = "nats://127.0.0.1:4222"
    chain = "devnet"
    data_dir = "/var/lib/assay/miner"
    seed_file = "/etc/assay/miner.seed"

    [miner]             # read by the actor of that name: `Settings.table`
    capacity = 2

Every plain setting has a variable of its name in capitals: ASSAY_URL, ASSAY_DATA_DIR, … Secrets are never settings,
only the names of files that hold them; ASSAY_PASSWORD is the one exception.
"""

import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from actors.keystore import Keystore, load_seed_file
from events.errors import BadInput, NotAllowed
from events.keys import Key
from schemas.values import Amount, ChainId

PREFIX = "ASSAY_"
LONGEST_FILE = 1_048_576
LONGEST_PASSWORD = 4_096

Table = TypeVar("Table", bound=Struct)


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every actor needs. Paths are as given; ``tables`` are the sections of single actors.

    ``url`` names one NATS server or, separated by commas, those of a cluster; ``replicas`` says on how many of them the
    first node to start has the streams kept.
    """

    chain: ChainId
    url: Annotated[str, Meta(min_length=1, max_length=2_048)] = "nats://127.0.0.1:4222"
    data_dir: str = ".assay"
    genesis: str = ""
    seed_file: str = ""
    keystore: str = ""
    wallet_name: str = ""
    password_file: str = ""
    gas_price: Amount | None = None
    replicas: Annotated[int, Meta(ge=1, le=5)] = 1
    log_level: str = "info"
    log_form: Literal["text", "json"] = "text"
    tables: dict[str, Any] = msgspec.field(default_factory=dict)

    def table(self, name: str, record: type[Table]) -> Table:
        """The section of one actor as its record; an absent section is an empty one. Raises BadInput."""
        try:
            return msgspec.convert(self.tables.get(name, {}), record)
        except msgspec.ValidationError as error:
            known = ", ".join(record.__struct_fields__)
            raise BadInput(
                f"the settings [{name}] cannot be used", why=str(error), hint=f"Known are {known}."
            ) from error

    def store_path(self, actor: str, address: str) -> Path:
        """Where this actor keeps its store."""
        return Path(self.data_dir) / f"{actor}-{address}.db"


def load_settings(
    flags: Mapping[str, str | int | None], environment: Mapping[str, str], files: tuple[Path, ...] = ()
) -> Settings:
    """The settings. A flag that is None was not given; of the files, the first that exist win. Raises BadInput.

    The file that ASSAY_CONFIG names comes before the others, and must exist.
    """
    found: dict[str, Any] = {}
    for path in reversed(files):
        if path.is_file():
            found |= _read_toml(path)
    if named := environment.get(PREFIX + "CONFIG"):
        found |= _read_toml(Path(named))
    names = [field.name for field in msgspec.structs.fields(Settings) if field.name != "tables"]
    tables = {name: found.pop(name) for name in list(found) if isinstance(found[name], dict)}
    for name in names:
        if value := environment.get(PREFIX + name.upper()):
            found[name] = value
    found |= {name: value for name, value in flags.items() if value is not None}
    try:
        # Not strict: a number in the environment is text.
        return msgspec.convert({**found, "tables": tables}, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise BadInput(
            "the settings cannot be used",
            why=str(error),
            hint=f"Known are {', '.join(names)}, each also as a variable such as {PREFIX}CHAIN.",
        ) from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST_FILE)
        return tomllib.loads(content.decode())
    except (OSError, ValueError, RecursionError) as error:
        # Not TOMLDecodeError alone: an integer of too many digits is another ValueError, and brackets nest too deeply.
        hint = "Name a TOML file with --settings; deploy/ has one for each role."
        raise BadInput(f"the settings file {path} cannot be read", why=str(error), hint=hint) from error


def load_key(settings: Settings, environment: Mapping[str, str]) -> Key:
    """The actor's key: of its seed file, or of a wallet in a keystore, whose password unlocks it.

    Raises NotAllowed when neither is named, BadInput, and the errors of the keystore.
    """
    if settings.seed_file:
        return load_seed_file(Path(settings.seed_file))
    if settings.keystore and settings.wallet_name:
        return Keystore(Path(settings.keystore)).unlock(settings.wallet_name, _password(settings, environment))
    raise NotAllowed(
        "the actor has no key",
        why="neither seed_file nor keystore and wallet_name are set",
        hint="Set ASSAY_SEED_FILE, or ASSAY_KEYSTORE, ASSAY_WALLET_NAME and ASSAY_PASSWORD_FILE.",
    )


def _password(settings: Settings, environment: Mapping[str, str]) -> str:
    if settings.password_file == "-":  # noqa: S105  the sign for standard input
        line = sys.stdin.readline(LONGEST_PASSWORD)
    elif settings.password_file:
        try:
            with Path(settings.password_file).open(encoding="utf-8") as file:
                line = file.readline(LONGEST_PASSWORD)
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"the password file {settings.password_file} cannot be read", why=str(error)) from error
    else:
        line = environment.get(PREFIX + "PASSWORD", "")
    password = line.rstrip("\r\n")
    if not password:
        raise NotAllowed(
            f"no password for wallet {settings.wallet_name}",
            why="the first line of its file is empty, or none is named",
            hint="Set ASSAY_PASSWORD_FILE (- for standard input).",
        )
    return password
