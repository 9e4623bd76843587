"""The long suite of honest and forged products, a short stretch of it."""

from tests.actors.attestation.long import run


def test_a_stretch_of_the_long_suite_has_no_error() -> None:
    """Honest products pass, those with one bit changed do not."""
    tally = run(150, 7)
    assert (tally.honest, tally.wrongly_rejected) == (150, 0)
    assert (tally.forged, tally.wrongly_accepted) == (150, 0)
    assert tally.large == 2
