"""What the parser `result` is fed with."""

from actors.services.registry import SERVICES
from schemas.services import KernelCustom
from tests.fuzz.result_parsers import known


def test_every_service_that_verifies_is_fuzzed() -> None:
    """There is a small work for each service, but for the one whose results nobody can verify."""
    assert {type(each.work) for each in known()} == SERVICES.keys() - {KernelCustom}
