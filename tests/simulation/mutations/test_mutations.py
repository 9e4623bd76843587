"""The net is checked itself: defects are planted into the running code, and the simulation has to find each."""

import pytest

from actors import feed
from tests.simulation.mutations.catalogue import MUTATIONS
from tests.simulation.mutations.hunt import catch, see
from tests.simulation.mutations.mutation import DoesNotApply, Mutation, planted

SEEDS = 500


@pytest.mark.timeout(900)  # where a seed tells another story now, many are run
@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.name for mutation in MUTATIONS])
def test_the_simulation_finds_the_defect(mutation: Mutation) -> None:
    """A checker finds the defect, with the seed that is known to show it, or, once that tells another story, within
    500 seeds."""
    with planted(mutation):
        seen = see(mutation.seed)
    assert seen or catch(mutation, range(SEEDS)).seen, f"nobody sees that {mutation.what}"


def test_there_are_twenty_defects() -> None:
    """The catalogue has at least twenty, each under a name of its own."""
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 20


@pytest.mark.parametrize("text", ["this was never there", "height"], ids=["missing", "many times"])
def test_a_mutation_that_does_not_apply_fails(text: str) -> None:
    """Code that has moved on makes its mutation fail, not pass for sound or for caught."""
    stale = Mutation(name="stale", what="-", where="actors.feed:Feed.run", changes=((text, "pass"),), seed=0)
    with pytest.raises(DoesNotApply), planted(stale):
        pass


def test_the_sound_code_comes_back() -> None:
    """After a mutation the function is what it was, also when the run within it failed."""
    sound = feed.Feed.run.__code__
    mutation = next(mutation for mutation in MUTATIONS if mutation.where == "actors.feed:Feed.run")
    seen = []

    def fail_within() -> None:
        with planted(mutation):
            seen.append(feed.Feed.run.__code__)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_within()
    assert seen != [sound]
    assert feed.Feed.run.__code__ is sound
