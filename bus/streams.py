"""The four streams and the validators' inbox readers: their whole configuration, made once and compared at every start.

Every setting is written down, also where it is the server's default: an update with a partial configuration would reset
the rest, and a default may change with the server. What is left to the operator is `FREE`: where and how often the
streams are kept.
"""

from collections.abc import Mapping
from typing import Any

from bus.connection import ApiError, Connection
from bus.port import Limits
from events import subjects
from events.errors import BusError, Unreachable, WrongNetwork

SECOND = 1_000_000_000
GENESIS = "assay.genesis"
REDELIVERY_S = 30
DUPLICATES_S = 120
BLOB_MESSAGES = 8_192  # per blob: four uploads of the longest one that a reader accepts
HEADER_BYTES = 4_096
FREE = frozenset({"num_replicas", "placement"})
SERVERS_OWN = "_nats."
STREAM_MISSING = 10059
CONSUMER_MISSING = 10014
CONSUMER_EXISTS = frozenset({10012, 10013, 10105, 10148})
STREAM_EXISTS = 10058


def reader_name(validator: str) -> str:
    """The durable consumer through which a validator reads all inboxes."""
    return f"proposer-{validator}"


def blob_message_bytes(limits: Limits) -> int:
    """The largest message of a blob: other clients may send up to four of our chunks at once."""
    return 4 * limits.blob_chunk_bytes


def _stream(name: str, *chosen: str, **settings: Any) -> dict[str, Any]:
    age = settings.get("max_age", 0)
    return {
        "name": name,
        "subjects": list(chosen),
        "retention": "limits",
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "discard": "old",
        "storage": "file",
        "duplicate_window": min(DUPLICATES_S * SECOND, age or DUPLICATES_S * SECOND),  # never longer than the age
        "compression": "none",
        "allow_direct": False,
        "mirror_direct": False,
        "discard_new_per_subject": False,
        "sealed": False,
        "deny_delete": False,
        "deny_purge": False,
        "allow_rollup_hdrs": False,
        "consumer_limits": {},
        "allow_msg_ttl": False,
    } | settings


def stream_settings(chain: str, limits: Limits) -> dict[str, dict[str, Any]]:
    """By kind (INBOX, CHAIN, FEED, BLOBS)."""
    return {
        # The mempool: kept until every validator has settled it; a sender or a flood is refused, nobody is pushed out.
        "INBOX": _stream(
            subjects.stream(chain, "INBOX"),
            subjects.inbox(chain, "*"),
            retention="interest",
            discard="new",
            discard_new_per_subject=True,
            max_msgs=limits.inbox_messages,
            max_msgs_per_subject=limits.inbox_per_sender,
            max_bytes=limits.inbox_bytes,
            max_age=limits.inbox_age_s * SECOND,
            max_msg_size=limits.event_bytes + HEADER_BYTES,
        ),
        # The log: for ever. Two subjects, so that the fence of blocks does not see votes.
        "CHAIN": _stream(
            subjects.stream(chain, "CHAIN"),
            subjects.block(chain),
            subjects.vote(chain),
            discard="new",
            max_msg_size=limits.block_bytes + HEADER_BYTES,
            deny_delete=True,
            deny_purge=True,
        ),
        "FEED": _stream(subjects.stream(chain, "FEED"), subjects.feed(chain, "*"), max_age=limits.feed_age_s * SECOND),
        # Discard new: a full store refuses the next blob. Pushing out the oldest would let anyone delete the inputs of
        # running jobs by uploading.
        "BLOBS": _stream(
            subjects.stream(chain, "BLOBS"),
            subjects.blob(chain, "*", "*"),
            discard="new",
            discard_new_per_subject=True,
            max_msgs_per_subject=BLOB_MESSAGES,
            max_bytes=limits.blobs_total_bytes,
            max_age=limits.blob_age_s * SECOND,
            max_msg_size=blob_message_bytes(limits) + HEADER_BYTES,
        ),
    }


def reader_settings(validator: str, limits: Limits) -> dict[str, Any]:
    """Everything unsettled comes again: at once after a restart (the reader resets it), else after `REDELIVERY_S`."""
    return {
        "name": reader_name(validator),
        "durable_name": reader_name(validator),
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": REDELIVERY_S * SECOND,
        "max_deliver": -1,
        "replay_policy": "instant",
        "max_waiting": 512,
        "max_ack_pending": limits.inbox_messages,
        "num_replicas": 0,
    }


def difference(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """The first setting that differs, in words; None when all are equal.

    A setting that is unknown here must be unset.
    """
    for name in sorted(wanted.keys() | found.keys()):
        if name in FREE and name not in wanted:
            continue
        if name == "metadata":
            ours = {key: value for key, value in found.get(name, {}).items() if not key.startswith(SERVERS_OWN)}
            if ours != wanted.get(name, {}):
                return f"metadata is {ours}, not {wanted.get(name, {})}"
        elif (found.get(name) or None) != (wanted.get(name) or None):
            return f"{name} is {found.get(name)!r}, not {wanted.get(name)!r}"
    return None


async def set_up(
    connection: Connection, chain: str, limits: Limits, genesis_hash: str, validators: tuple[str, ...]
) -> None:
    """Creates what is missing, compares what is there. Raises WrongNetwork, Unreachable."""
    for settings in stream_settings(chain, limits).values():
        await _ensure_stream(connection, settings, genesis_hash, limits.replicas)
    for validator in validators:
        await ensure_reader(connection, chain, limits, validator)


def with_genesis(settings: Mapping[str, Any], genesis_hash: str) -> dict[str, Any]:
    """The settings of a stream that belongs to this genesis."""
    return {**settings, "metadata": {GENESIS: genesis_hash}}


async def _ensure_stream(connection: Connection, settings: dict[str, Any], genesis_hash: str, replicas: int) -> None:
    name = settings["name"]
    wanted = with_genesis(settings, genesis_hash)
    try:
        info = await connection.api(f"STREAM.INFO.{name}")
    except ApiError as error:
        if error.number != STREAM_MISSING:
            raise _refused(f"stream {name}", error) from error
        try:
            info = await connection.api(f"STREAM.CREATE.{name}", wanted | {"num_replicas": replicas})
        except ApiError as refusal:
            if refusal.number != STREAM_EXISTS:
                raise _refused(f"stream {name}", refusal) from refusal
            info = await connection.api(f"STREAM.INFO.{name}")  # somebody else made it meanwhile
    check_stream(wanted, info["config"], genesis_hash)


def check_stream(wanted: Mapping[str, Any], found: Mapping[str, Any], genesis_hash: str) -> None:
    """Raises WrongNetwork when the stream that is there belongs to another genesis or is set up differently."""
    name = wanted["name"]
    stored = found.get("metadata", {}).get(GENESIS)
    if stored != genesis_hash:
        hint = "Use the genesis file of this network, or another chain name."
        why = f"stream {name} belongs to genesis {stored}, not {genesis_hash}"
        raise WrongNetwork("another network", why=why, hint=hint, stream=name, expected=genesis_hash, found=stored)
    check_settings(f"stream {name}", wanted, found)


async def ensure_reader(connection: Connection, chain: str, limits: Limits, validator: str) -> None:
    """Creates a validator's inbox reader when it is missing and compares its settings. Raises WrongNetwork."""
    stream, name = subjects.stream(chain, "INBOX"), reader_name(validator)
    wanted = reader_settings(validator, limits)
    try:
        info = await connection.api(f"CONSUMER.INFO.{stream}.{name}")
    except ApiError as error:
        if error.number == STREAM_MISSING:
            raise not_set_up(chain) from error
        if error.number != CONSUMER_MISSING:
            raise _refused(f"reader {name}", error) from error
        request = {"stream_name": stream, "config": wanted, "action": "create"}
        try:
            info = await connection.api(f"CONSUMER.CREATE.{stream}.{name}", request)
        except ApiError as refusal:
            if refusal.number not in CONSUMER_EXISTS:
                raise _refused(f"reader {name}", refusal) from refusal
            info = await connection.api(f"CONSUMER.INFO.{stream}.{name}")
    check_settings(f"reader {name}", wanted, info["config"])


def not_set_up(chain: str) -> Unreachable:
    hint = "A validator's node creates its streams: start one."
    return Unreachable(f"this server has no chain {chain} yet", hint=hint, chain=chain)


def _refused(what: str, error: ApiError) -> BusError:
    return BusError(f"the NATS server refuses {what}", why=error.description, code=error.number)


def check_settings(what: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raises WrongNetwork, which names the first setting that differs."""
    setting = difference(wanted, found)
    if setting is not None:
        hint = "Start with the limits this network was made with, or set the server back to them."
        raise WrongNetwork(f"{what} is set up differently", why=setting, hint=hint, setting=setting)
