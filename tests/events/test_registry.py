"""Versions of event types and the upcasters between them."""

import pytest
from msgspec import UNSET, UnsetType, ValidationError

from events.canonical import canonical
from events.envelope import parse, sign
from events.registry import REGISTRY, Registry, Upcaster, split_name
from schemas.events import EVENT_TYPES, Body, type_of
from schemas.values import Amount
from tests.golden.samples import ALICE, CHAIN


class Greeted(Body, frozen=True, tag="greeting.sent", tag_field="type"):
    """Version 1: a text."""

    text: str


class Greeted2(Body, frozen=True, tag="greeting.sent/2", tag_field="type"):
    """Version 2: the text has another name."""

    words: str


class Greeted3(Body, frozen=True, tag="greeting.sent/3", tag_field="type"):
    """Version 3: a gift may come with it."""

    words: str
    gift: Amount | UnsetType = UNSET


class Waved(Body, frozen=True, tag="wave.sent", tag_field="type"):
    """Another type, with one version."""


class GreetedAgain(Body, frozen=True, tag="greeting.sent", tag_field="type"):
    """Another record under a name that is taken."""


class FirstWithNumber(Body, frozen=True, tag="bow.made/1", tag_field="type"):
    """Version 1 is written without its number."""


class PaddedNumber(Body, frozen=True, tag="greeting.sent/02", tag_field="type"):
    """A version's number has no leading zero."""


def common(body: Body) -> dict[str, object]:
    """The fields that every version has."""
    return {"chain": body.chain, "sender": body.sender, "nonce": body.nonce, "gas_price": body.gas_price}


def second(first: Greeted) -> Greeted2:
    """From version 1 to 2."""
    return Greeted2(words=first.text, **common(first))  # type: ignore[arg-type]


def third(first: Greeted2) -> Greeted3:
    """From version 2 to 3."""
    return Greeted3(words=first.words, **common(first))  # type: ignore[arg-type]


UPCASTERS: dict[str, Upcaster] = {"greeting.sent": second, "greeting.sent/2": third}
SAMPLE = Registry((Greeted, Greeted2, Greeted3, Waved), UPCASTERS)


def greeted() -> Greeted:
    """A greeting in version 1."""
    return Greeted(chain=CHAIN, sender=ALICE.address, nonce=7, gas_price=2, text="hello")


def test_a_name_without_a_number_is_version_1() -> None:
    """A type's bare name is its first version."""
    assert split_name("job.submitted") == ("job.submitted", 1)
    assert split_name("job.submitted/12") == ("job.submitted", 12)


def test_old_versions_become_the_newest() -> None:
    """A record of version 1 is lifted step by step, keeping what all versions share."""
    lifted = SAMPLE.newest(greeted())
    assert lifted == Greeted3(chain=CHAIN, sender=ALICE.address, nonce=7, gas_price=2, words="hello")


def test_the_newest_version_stays_as_it_is() -> None:
    """What is newest already is not touched."""
    newest = Greeted3(chain=CHAIN, sender=ALICE.address, nonce=7, gas_price=2, words="hello", gift=1)
    assert SAMPLE.newest(newest) is newest


def test_an_envelope_keeps_the_bytes_that_were_signed() -> None:
    """An old event is read as the newest record, but its id and signature remain those of its own bytes."""
    signed = sign(greeted(), ALICE)
    read = parse(signed.raw, SAMPLE)
    assert type_of(read.event) == "greeting.sent/3"
    assert read.id == signed.id
    assert read.body_bytes == canonical(greeted())


def test_a_record_is_decoded_as_it_was_signed() -> None:
    """Decoding alone lifts nothing."""
    assert SAMPLE.decode(canonical(greeted())) == greeted()


def test_an_unknown_type_is_not_decoded() -> None:
    """A type that is not registered is refused by the decoder."""
    with pytest.raises(ValidationError, match="greeting"):
        REGISTRY.decode(canonical(greeted()))


@pytest.mark.parametrize(
    ("records", "upcasters", "complaint"),
    [
        ((Greeted, Greeted3), {"greeting.sent": second}, "hole before 3"),
        ((Greeted2, Greeted3), {"greeting.sent/2": third}, "hole before 2"),
        ((Greeted, Greeted2), {}, "greeting.sent needs an upcaster"),
        ((Greeted,), {"greeting.sent": second}, "greeting.sent needs an upcaster exactly"),
        ((Greeted, Waved), {"bow.made": second}, r"upcasters of unknown types: \['bow.made'\]"),
        ((Greeted, GreetedAgain), {}, "greeting.sent is there twice"),
        ((FirstWithNumber,), {}, "bow.made/1 has to be written bow.made"),
        ((Greeted, PaddedNumber), {"greeting.sent": second}, "has to be written greeting.sent/2"),
    ],
)
def test_a_registry_is_whole(records: tuple[type[Body], ...], upcasters: dict[str, Upcaster], complaint: str) -> None:
    """Holes, missing and stray upcasters, and names written in another way, break at once."""
    with pytest.raises(AssertionError, match=complaint):
        Registry(records, upcasters)


def test_an_upcaster_leads_to_the_next_version() -> None:
    """An upcaster that gives anything but the next version is a mistake of ours, found at its first use."""
    wrong = Registry((Greeted, Greeted2), {"greeting.sent": lambda event: event})
    with pytest.raises(AssertionError, match=r"before greeting\.sent/2 gave a greeting\.sent"):
        wrong.newest(greeted())


def test_the_registry_holds_every_event_type() -> None:
    """Each record of an event is registered under its own name."""
    assert tuple(REGISTRY.records.values()) == EVENT_TYPES
    assert all(REGISTRY.records[str(record.__struct_config__.tag)] is record for record in EVENT_TYPES)
