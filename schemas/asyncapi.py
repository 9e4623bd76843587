"""The AsyncAPI document: every subject, what travels on it, and who says it. Seen from a client of the network."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

PROTOCOL_VERSION: Final = "1.0.0"
_FORMAT: Final = "application/schema+json;version=draft-2020-12"

_PARAMETERS: Final[Mapping[str, str]] = {
    "chain": "The name of the chain.",
    "address": "An NKey address (`U…`): of the sender, of the feed's owner, of the wallet.",
    "owner": "The address of the blob's uploader.",
    "digest": "The SHA-256 of the whole blob, in lower-case hexadecimal.",
}

# channel: (address, description, messages). Each message is the schema file of its payload, without `.json`.
_CHANNELS: Final[Mapping[str, tuple[str, str, tuple[str, ...]]]] = {
    "inbox": (
        "assay.{chain}.inbox.{address}",
        "Signed events that wait for a block. Only its owner's events are taken from an inbox. Stream INBOX.",
        ("envelope",),
    ),
    "block": (
        "assay.{chain}.chain.block",
        "Proposed blocks, the events inside byte for byte. Stream CHAIN.",
        ("block",),
    ),
    "vote": ("assay.{chain}.chain.vote", "The validators' votes for blocks. Stream CHAIN.", ("vote",)),
    "feed": (
        "assay.{chain}.feed.{address}",
        "Final events that concern one address, one message per block. Stream FEED, for 7 days.",
        ("feed_message",),
    ),
    "live_refused": (
        "assay.{chain}.live.{address}.refused",
        "A mempool turned an event of this sender away. Not stored.",
        ("event_refused",),
    ),
    "live_progress": (
        "assay.{chain}.live.{address}.progress",
        "How far a miner is with a job. Not stored.",
        ("progress",),
    ),
    "wallet": (
        "assay.{chain}.wallet.{address}",
        "Unsigned requests to the wallet that holds this address's key.",
        ("wallet_request",),
    ),
    "blob": (
        "assay.{chain}.blob.{owner}.{digest}",
        "The chunks of a blob, in order. Stream BLOBS, for 7 days.",
        ("blob_chunk",),
    ),
}

# operation: (action, channel, summary, channel of the reply).
_OPERATIONS: Final[Mapping[str, tuple[str, str, str, str | None]]] = {
    "submit_event": ("send", "inbox", "Publish a signed event.", None),
    "read_blocks": ("receive", "block", "Follow the log: blocks.", None),
    "read_votes": ("receive", "vote", "Follow the log: votes.", None),
    "read_feed": ("receive", "feed", "Learn what became final for an address.", None),
    "hear_refusals": ("receive", "live_refused", "Learn at once that an event was turned away.", None),
    "hear_progress": ("receive", "live_progress", "Watch a job run.", None),
    "ask_wallet": ("send", "wallet", "Let a wallet complete, sign and publish an event.", "wallet_reply"),
    "upload_blob": ("send", "blob", "Store an input or a result.", None),
    "download_blob": ("receive", "blob", "Fetch an input or a result.", None),
}

_BLOB_CHUNK: Final[Mapping[str, Any]] = {
    "name": "blob_chunk",
    "title": "Blob chunk",
    "summary": "A piece of a blob: raw bytes.",
    "contentType": "application/octet-stream",
    "headers": {
        "type": "object",
        "properties": {
            "Assay-Chunk": {
                "type": "string",
                "pattern": "^[0-9]{1,7}/[0-9]{1,8}$",
                "description": "`i/n`: this is piece i, counted from 0, of n (at most 2,048). None: the only one.",
            }
        },
    },
}


def document(queries: tuple[str, ...]) -> dict[str, Any]:
    """The document for these names of queries. Payloads refer to the schema files beside it."""
    channels = dict(_channels(queries))
    payloads = sorted({stem: None for _, _, stems in channels.values() for stem in stems})
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "Assay",
            "version": PROTOCOL_VERSION,
            "description": "Signed events on NATS subjects, ordered into blocks; see docs/protocol.md.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(*channel) for name, channel in channels.items()},
        "operations": {name: _operation(channels, *operation) for name, operation in _operations(queries)},
        "components": {"messages": {stem: _message(stem) for stem in payloads}},
    }


def _channels(queries: tuple[str, ...]) -> Iterator[tuple[str, tuple[str | None, str, tuple[str, ...]]]]:
    yield from _CHANNELS.items()
    yield "wallet_reply", (None, "The wallet's answer, to the reply subject of the request.", ("wallet_answer",))
    for name in queries:
        about = f"The question `{name}`, answered by any node (NATS services API)."
        yield f"query_{name}", (f"assay.{{chain}}.query.{name}", about, (f"query.{name}.question",))
    about = "A node's answer, to the reply subject of the question. `value` is by `query.<name>.answer.json`."
    yield "query_reply", (None, about, ("query_answer",))


def _operations(queries: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, str, str, str | None]]]:
    yield from _OPERATIONS.items()
    for name in queries:
        yield f"ask_{name}", ("send", f"query_{name}", f"Ask a node: {name}.", "query_reply")


def _channel(address: str | None, description: str, stems: tuple[str, ...]) -> dict[str, Any]:
    parameters = {name: {"description": text} for name, text in _PARAMETERS.items() if f"{{{name}}}" in (address or "")}
    messages = {stem: {"$ref": f"#/components/messages/{stem}"} for stem in stems}
    found: dict[str, Any] = {"address": address, "description": description, "messages": messages}
    return found | {"parameters": parameters} if parameters else found


def _operation(channels: Mapping[str, Any], action: str, channel: str, summary: str, reply: str | None) -> Any:
    operation: dict[str, Any] = {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{stem}"} for stem in channels[channel][2]],
    }
    if reply is not None:
        operation["reply"] = {
            "channel": {"$ref": f"#/channels/{reply}"},
            "messages": [{"$ref": f"#/channels/{reply}/messages/{stem}"} for stem in channels[reply][2]],
        }
    return operation


def _message(stem: str) -> Mapping[str, Any]:
    if stem == "blob_chunk":
        return _BLOB_CHUNK
    return {"name": stem, "payload": {"schemaFormat": _FORMAT, "schema": {"$ref": f"./{stem}.json"}}}
