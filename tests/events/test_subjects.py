"""Names of subjects and streams."""

import re

import pytest

from events import subjects
from tests.golden.samples import ALICE, CHAIN, JOB

ADDRESS = ALICE.address


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (subjects.inbox(CHAIN, ADDRESS), f"assay.assay-test.inbox.{ADDRESS}"),
        (subjects.block(CHAIN), "assay.assay-test.chain.block"),
        (subjects.vote(CHAIN), "assay.assay-test.chain.vote"),
        (subjects.feed(CHAIN, ADDRESS), f"assay.assay-test.feed.{ADDRESS}"),
        (subjects.live(CHAIN, ADDRESS, "refused"), f"assay.assay-test.live.{ADDRESS}.refused"),
        (subjects.query(CHAIN, "account"), "assay.assay-test.query.account"),
        (subjects.wallet(CHAIN, ADDRESS), f"assay.assay-test.wallet.{ADDRESS}"),
        (subjects.blob(CHAIN, ADDRESS, JOB), f"assay.assay-test.blob.{ADDRESS}.{JOB}"),
    ],
)
def test_subjects_are_those_of_the_protocol(found: str, wanted: str) -> None:
    """Each subject is spelled as the protocol says, and is a valid NATS subject without wildcards."""
    assert found == wanted
    assert re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", found)


@pytest.mark.parametrize("kind", subjects.STREAMS)
def test_stream_names_hold_no_dots(kind: str) -> None:
    """A stream's name has the chain and the kind, and nothing that NATS forbids in it."""
    assert re.fullmatch(r"ASSAY_assay-test_[A-Z]+", subjects.stream(CHAIN, kind))


def test_the_owner_of_an_inbox_is_its_last_token() -> None:
    """The address comes back from the subject."""
    assert subjects.last_token(subjects.inbox(CHAIN, ADDRESS)) == ADDRESS
    assert subjects.last_token("alone") == "alone"
