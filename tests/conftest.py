"""What every test shares."""

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

# Examples stay random from run to run, and a failure prints the blob that repeats it. Time is no verdict here: two
# workers share two cores with servers, so neither a deadline nor a slow first example says anything about the code.
settings.register_profile("assay", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("assay")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A test that configures the process's logging, perhaps to a stream of its own, leaves nothing of it behind."""
    yield
    structlog.reset_defaults()
