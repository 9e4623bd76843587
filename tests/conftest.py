"""Settings that every test shares."""

from hypothesis import HealthCheck, settings

# Examples stay random from run to run, and a failure prints the blob that repeats it. Time is no verdict here: two
# workers share two cores with servers, so neither a deadline nor a slow first example says anything about the code.
settings.register_profile("assay", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("assay")
