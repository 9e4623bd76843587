"""Cards beside a card: what leaving one out of the claim is worth."""

from pathlib import Path

import pytest

from actors.attestation.judge import Submission
from actors.attestation.probe import probe
from projections.attestation import attested
from tests.actors.attestation.mock_host import SECOND_BUS, kernel_trees, libraries, needs_compiler, neighbour, places
from tests.actors.attestation.small_exam import honest_sitting, submission
from tests.actors.attestation.test_adversaries import BLOCK, LISTS, MOST_FOR_AN_ADVERSARY, attestation


@pytest.fixture(scope="module")
def right() -> Submission:
    return submission(honest_sitting())


@needs_compiler
def test_a_neighbour_that_only_the_kernel_shows_holds_no_card_down(tmp_path: Path, right: Submission) -> None:
    """Beside it stands one that is bound to a virtual machine, in /sys alone: the own card has all its points."""
    proc, sys = kernel_trees(tmp_path)
    neighbour(sys, SECOND_BUS)
    found = probe(places(tmp_path, libraries(tmp_path / "lib"), proc=proc, sys=sys))
    assert attested(attestation(found.evidence(1, BLOCK, LISTS.digest()), right)).score == 100


@needs_compiler
def test_a_card_that_a_library_names_is_examined_too(tmp_path: Path, right: Submission) -> None:
    """Of two claimed cards the second has no answer: the host is worth as much as that one."""
    found = probe(places(tmp_path, libraries(tmp_path / "lib", CARDS="2")))
    claimed = found.evidence(1, BLOCK, LISTS.digest())
    assert len(claimed.gpus) == 2
    assert attested(attestation(claimed, right)).score <= MOST_FOR_AN_ADVERSARY


@needs_compiler
def test_a_card_under_a_false_place_is_held_down(tmp_path: Path, right: Submission) -> None:
    """Libraries that name a place on the bus which /sys does not know hide no card that is there: 40 at most."""
    _, sys = kernel_trees(tmp_path, device="1eb8")
    library = libraries(tmp_path / "lib", BUS_ID='"00000000:99:00.0"', CUDA_BUS_ID='"0000:99:00.0"')
    found = probe(places(tmp_path, library, sys=sys))
    assert attested(attestation(found.evidence(1, BLOCK, LISTS.digest()), right)).score <= MOST_FOR_AN_ADVERSARY
