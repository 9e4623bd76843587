"""Envelopes that every reader must turn away, with the code of the refusal: for the vectors and for our own tests."""

from collections.abc import Iterator

from events.canonical import canonical
from events.envelope import MAX_EVENT_BYTES, wrap
from schemas.events import Body
from tests.golden.samples import ALICE, JOB, signed_events, transfer

SIG = signed_events()["transfer"].sig
BODY = canonical(transfer(nonce=1, memo="é"))
RAW = wrap(BODY, SIG)

Case = tuple[str, bytes, str]


def refused_envelopes() -> Iterator[Case]:
    """What is wrong, the bytes, and the code."""
    yield from _wrong_envelopes()
    yield from _wrong_json()
    yield from _wrong_values()
    yield from _wrong_types()


def _replaced(old: bytes, new: bytes) -> bytes:
    if BODY.count(old) != 1:
        raise AssertionError(f"{old!r} is not once in {BODY!r}")
    return wrap(BODY.replace(old, new), SIG)


def _wrong_envelopes() -> Iterator[Case]:
    sig = b'"sig":"' + SIG.encode() + b'"'
    body = b'"body":' + BODY
    cases = {
        "nothing": b"",
        "a null alone": b"null",
        "an array": b"[" + RAW + b"]",
        "a body without its envelope": BODY,
        "keys in the other order": b"{" + sig + b"," + body + b"}",
        "no signature": b"{" + body + b"}",
        "no body": b"{" + sig + b"}",
        "an empty envelope": b"{}",
        "a third field": b"{" + body + b"," + sig + b',"x":1}',
        "a field in front": b'{"a":1,' + body + b"," + sig + b"}",
        "white space in front": b" " + RAW,
        "white space behind": RAW + b" ",
        "a line feed behind": RAW + b"\n",
        "white space after a comma": RAW.replace(b',"sig"', b', "sig"'),
        "white space after a colon": RAW.replace(b'{"body":{', b'{"body": {'),
        "a trailing byte": RAW + b"}",
        "a byte order mark": b"\xef\xbb\xbf" + RAW,
        "UTF-16": RAW.decode().encode("utf-16"),
        "an escaped key": RAW.replace(b'"sig"', b'"\\u0073ig"'),
        "a shorter signature": wrap(BODY, SIG[:-1]),
        "a longer signature": wrap(BODY, SIG + "A"),
        "a padded signature": wrap(BODY, SIG + "=="),
        "an empty signature": wrap(BODY, ""),
        "a signature in the standard alphabet": wrap(BODY, "+" * 85 + "A"),
        "a signature with bits left over": wrap(BODY, "A" * 85 + "B"),
        "a signature of quotation marks": wrap(BODY, '"' * 86),
        "a signature that is not ASCII": wrap(BODY, "é" * 43),
        "a signature of bytes that are not UTF-8": RAW.replace(SIG.encode(), b"\xff" * 86),
        "cut in the middle": RAW[:100],
        "cut at the end": RAW[:-1],
    }
    yield from ((name, raw, "NOT_CANONICAL") for name, raw in cases.items())
    yield "too many bytes", wrap(canonical(transfer(memo="m" * MAX_EVENT_BYTES)), SIG), "TOO_LARGE"


def _wrong_json() -> Iterator[Case]:
    nonce = b'"nonce":1'
    not_canonical = {
        "white space in the body": _replaced(nonce, b'"nonce": 1'),
        "a repeated key": _replaced(nonce, nonce + b"," + nonce),
        "a repeated key with another value": _replaced(nonce, b'"nonce":2,' + nonce),
        "keys not sorted": wrap(b"{" + nonce + b"," + BODY[1:].replace(nonce + b",", b""), SIG),
        "an escaped letter": _replaced("é".encode(), b"\\u00e9"),
        "an escaped key in the body": _replaced(b'"nonce"', b'"\\u006eonce"'),
        "an escaped type": _replaced(b"transfer.sent", b"transfer\\u002esent"),
        "an escaped slash": _replaced("é".encode(), b"\\/"),
        "an escaped pair of surrogates": _replaced("é".encode(), b"\\ud83d\\ude00"),
        "a minus zero": _replaced(nonce, b'"nonce":-0'),
        "a float": _replaced(nonce, b'"nonce":1.0'),
        "an exponent": _replaced(nonce, b'"nonce":1e0'),
        "a null": _replaced(nonce, b'"nonce":null'),
        "a null for an optional field": _replaced('"é"'.encode(), b"null"),
        "a null in a field that is not known": _replaced(nonce, nonce + b',"nothing":null'),
        "a float inside of arrays": _replaced(nonce, nonce + b',"x":[[{"y":0.5}]]'),
    }
    yield from ((name, raw, "NOT_CANONICAL") for name, raw in not_canonical.items())
    malformed = {
        "no JSON": wrap(b"hello", SIG),
        "an empty body": wrap(b"", SIG),
        "two envelopes": RAW + RAW,
        "two bodies": wrap(BODY + BODY, SIG),
        "a body that ends too early": wrap(BODY[:-1], SIG),
        "a body that is an array": wrap(b"[]", SIG),
        "a body that is a text": wrap(b'"transfer.sent"', SIG),
        "a body that is null": wrap(b"null", SIG),
        "a body that is a number": wrap(b"1", SIG),
        "bytes that are not UTF-8": _replaced("é".encode(), b"\xff"),
        "an encoded surrogate": _replaced("é".encode(), b"\xed\xa0\x80"),
        "a lone escaped surrogate": _replaced("é".encode(), b"\\ud800"),
        "a lone escaped low surrogate": _replaced("é".encode(), b"\\udc00"),
        "a control character that is not escaped": _replaced("é".encode(), b"\n"),
        "a number with a leading zero": _replaced(nonce, b'"nonce":01'),
        "NaN": _replaced(nonce, b'"nonce":NaN'),
        "single quotes": _replaced(b'"nonce"', b"'nonce'"),
        "a trailing comma": wrap(BODY[:-1] + b",}", SIG),
        "a comment": wrap(BODY[:-1] + b"/**/}", SIG),
        "objects nested deeply": wrap(b'{"a":' * 5_000 + b"1" + b"}" * 5_000, SIG),
        "arrays nested deeply": wrap(b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}", SIG),
        "arrays that never close": wrap(b'{"a":' + b"[" * 60_000, SIG),
    }
    yield from ((name, raw, "MALFORMED") for name, raw in malformed.items())


def _wrong_values() -> Iterator[Case]:
    address = ALICE.address
    changed: dict[str, Body] = {
        "a negative amount": transfer(amount=-1),
        "an amount of zero": transfer(amount=0),
        "an amount of 2^53": transfer(amount=2**53),
        "an amount of 2^64": transfer(amount=2**64),
        "a negative nonce": transfer(nonce=-1),
        "a negative gas price": transfer(gas_price=-1),
        "a memo that is too long": transfer(memo="m" * 257),
        "a recipient in small letters": transfer(to=address.lower()),
        "a recipient with a mistyped character": transfer(to=address[:20] + "A" + address[21:]),
        "a recipient that is no account": transfer(to="M" + address[1:]),
        "a sender with a mistyped character": transfer(sender=address[:20] + "A" + address[21:]),
        "a chain with a dot": transfer(chain="assay.test"),
        "an amount that is a text": transfer(amount="1"),
        "an amount that is a boolean": transfer(amount=True),
        "an amount that is an array": transfer(amount=[1]),
    }
    yield from ((name, wrap(canonical(event), SIG), "MALFORMED") for name, event in changed.items())
    nonce = b'"nonce":1'
    yield "an amount of 5,000 digits", _replaced(nonce, b'"nonce":' + b"9" * 5_000), "MALFORMED"
    yield "a field that is not known", _replaced(nonce, nonce + b',"nothing":1'), "MALFORMED"
    yield "a missing field", _replaced(nonce + b",", b""), "MALFORMED"
    for name, field in (
        ("job with seeds for chosen miners", "requirement"),
        ("assigned", "miner"),
        ("failed", "miner"),
    ):
        signed = signed_events()[name]
        address = signed.event.requirement.miners[0] if field == "requirement" else signed.event.miner  # type: ignore[attr-defined]
        mistyped = address[:30] + ("A" if address[30] != "A" else "B") + address[31:]
        body = signed.body_bytes.replace(address.encode(), mistyped.encode())
        yield f"{name}: a mistyped miner", wrap(body, SIG), "MALFORMED"


def _wrong_types() -> Iterator[Case]:
    yield "no type", _replaced(b',"type":"transfer.sent"', b""), "MALFORMED"
    yield "a type that is a number", _replaced(b'"transfer.sent"', b"1"), "MALFORMED"
    yield "a known type with the fields of another", _replaced(b"transfer.sent", b"job.cancelled"), "MALFORMED"
    yield (
        "a known type behind a nested one that is not known",
        wrap(f'{{"job":{{"type":"nobody.knows"}},"type":"job.cancelled","x":"{JOB}"}}'.encode(), SIG),
        "MALFORMED",
    )
    for name, spelled in {
        "an unknown type": "nobody.knows",
        "an unknown version": "transfer.sent/2",
        "an empty type": "",
        "a type in capitals": "Transfer.Sent",
        "a type that is not ASCII": "überweisung",
        "a very long type": "t" * 1_000,
    }.items():
        yield name, _replaced(b"transfer.sent", spelled.encode()), "UNKNOWN_TYPE"
