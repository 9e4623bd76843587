"""What a miner offers, by the section [miner] of its settings."""

from typing import Any, Literal

import pytest

from actors.roles import MinerTable, devices_of, offers_of
from actors.services.registry import SERVICES
from actors.settings import Settings
from events.errors import BadInput
from schemas.events import Device
from schemas.services import service_of

CUSTOM = "kernel.custom"
VERIFIED = sorted(service_of(record) for record in SERVICES if service_of(record) != CUSTOM)


def offered(**section: Any) -> dict[str, int]:
    """Prices by service, for a section as TOML gives it."""
    table = Settings(chain="devnet", tables={"miner": section}).table("miner", MinerTable)
    offers = offers_of(table)
    assert [offer.service for offer in offers] == sorted({offer.service for offer in offers})
    return {offer.service: offer.unit_price for offer in offers}


def test_all_that_can_be_verified_is_offered_at_one_price() -> None:
    """Without further words all services but strangers' programs are offered, each for the price of a unit."""
    assert offered(unit_price=7) == dict.fromkeys(VERIFIED, 7)


def test_single_services_have_prices_of_their_own() -> None:
    """What `prices` names costs that, everything else the common price."""
    assert offered(unit_price=7, prices={"sort": 5, "nbody": 0}) == dict.fromkeys(VERIFIED, 7) | {"sort": 5, "nbody": 0}


def test_only_the_services_that_are_named_are_offered() -> None:
    """`services` says which, however often it names one; a price alone offers nothing."""
    assert offered(services=["sort", "kmeans", "sort"], prices={"nbody": 3}) == {"kmeans": 10, "sort": 10}


def test_strangers_programs_are_offered_on_request_and_on_a_gpu() -> None:
    """`custom_kernels` adds them where there is a GPU."""
    assert CUSTOM in offered(custom_kernels=True, backend="pycuda")


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"services": ["sorting"]}, "'sorting' is not a service"),
        ({"prices": {"mining": 1}}, "'mining' is not a service"),
        ({"services": [CUSTOM]}, "'kernel.custom' is not a service"),
        ({"custom_kernels": True}, "needs a GPU"),
        ({"prices": {"sort": -1}}, "prices"),
        ({"prices": {"sort": 1.5}}, "prices"),
        ({"unit_price": -1}, "unit_price"),
        ({"services": "sort"}, "services"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(section: dict[str, Any], said: str) -> None:
    """A service that does not exist, a price that is none, and programs that nothing here could run are named."""
    with pytest.raises(BadInput) as caught:
        offered(**section)
    assert said in caught.value.why


@pytest.mark.parametrize(
    ("backend", "host_mib", "offered_mib"), [("cpu", 24_105, 4_096), ("cpu", 2_000, 2_000), ("pycuda", 24_105, 24_105)]
)
def test_a_processor_offers_no_more_memory_than_a_job_may_use(
    backend: Literal["cpu", "pycuda"], host_mib: int, offered_mib: int
) -> None:
    """Else jobs come that need more, and fail for it; the memory of a GPU is its own."""
    table = MinerTable(backend=backend, memory_mib=4_096)
    assert devices_of(table, [Device(model="it", memory_mib=host_mib)]) == (Device(model="it", memory_mib=offered_mib),)
