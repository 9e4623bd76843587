"""``assay run``: one actor as a process."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from actors.settings import Settings, load_settings
from events.errors import BadInput

Role = Literal["coordinator", "proposer", "miner", "wallet"]
SYSTEM = Path("/etc/assay")


def run_actor(
    actor: Annotated[Role, Parameter(help="What it does.")],
    /,
    *,
    settings: Annotated[
        Path | None,
        Parameter(env_var="ASSAY_CONFIG", help="TOML file; else ACTOR.toml of this directory or of /etc/assay."),
    ] = None,
    url: Annotated[str | None, Parameter(help="NATS server; wins over the settings.")] = None,
    chain: Annotated[str | None, Parameter(help="Name of the chain; wins over the settings.")] = None,
    genesis: Annotated[Path | None, Parameter(help="Genesis file; wins over the settings.")] = None,
    seed_file: Annotated[Path | None, Parameter(help="NKey seed of the actor; wins over the settings.")] = None,
    data_dir: Annotated[Path | None, Parameter(help="Where it keeps its state; wins over the settings.")] = None,
    log_level: Annotated[str | None, Parameter(help="debug, info, warning, error or critical.")] = None,
) -> None:
    """Run one actor until SIGTERM or Ctrl-C. It logs to stderr; where the environment has NOTIFY_SOCKET it says when it
    is ready, as systemd expects."""
    flags = {
        "url": url,
        "chain": chain,
        "genesis": _text(genesis),
        "seed_file": _text(seed_file),
        "data_dir": _text(data_dir),
        "log_level": log_level,
    }
    environment = dict(os.environ)
    if settings is not None:
        environment["ASSAY_CONFIG"] = str(settings)
    files = (Path(f"{actor}.toml"), SYSTEM / f"{actor}.toml")
    named = chain or environment.get("ASSAY_CHAIN") or environment.get("ASSAY_CONFIG")
    if not named and not any(file.is_file() for file in files):
        raise BadInput(
            f"no settings for the {actor}",
            why=f"neither {files[0]} nor {files[1]} exists",
            hint="Name a file with --settings; deploy/ in the sources has one for each actor.",
        )
    found = load_settings(flags, environment, files)
    if not found.genesis:
        raise BadInput("no genesis", why="the settings name none", hint="Set genesis in the settings, or --genesis.")
    _run(actor, found, environment)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _run(actor: Role, settings: Settings, environment: Mapping[str, str]) -> None:
    import uvloop

    from actors import telemetry
    from actors.roles import run_role
    from actors.runtime import stop_on_signals

    telemetry.configure_logging(settings.log_level, settings.log_form)
    tracing = telemetry.configure_tracing(f"assay-{actor}", environment)

    async def run() -> None:
        with stop_on_signals() as stop:
            await run_role(actor, settings, environment, stop)

    try:
        uvloop.run(run())
    finally:
        if tracing is not None:
            tracing.shutdown()
