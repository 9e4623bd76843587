"""An actor's own word: said once, whatever is lost, repeated or used up by others."""

import random

import pytest
from msgspec import structs
from structlog.testing import capture_logs

from actors.decision import Draft, Heard, draft
from actors.store import OutboxRow
from actors.voice import OVERDUE_MS, RESEND_FIRST_MS, RESEND_LONGEST_MS, RETRY_MS, WINDOW, Voice
from events.envelope import parse, read, wrap
from events.errors import Refused, Unreachable
from events.keys import Key
from schemas.blocks import Applied
from schemas.events import TransferSent
from schemas.refusals import (
    AnyRefusal,
    BadSignature,
    Expired,
    GasPriceTooLow,
    InsufficientBalance,
    Malformed,
    MempoolFull,
    NonceGap,
    NonceTaken,
    NonceTooFar,
    NonceTooLow,
    SenderLimitExceeded,
    WrongChain,
)

KEY = Key(b"k" * 32)
FRIEND = Key(b"f" * 32).address


def gift(amount: int = 1) -> Draft:
    return draft(TransferSent, to=FRIEND, amount=amount)


def fresh(nonce: int = 0, waiting: list[OutboxRow] | None = None, key: Key = KEY) -> Voice:
    voice = Voice(key, "testnet", 3, waiting or [], nonce)
    voice.asked()
    return voice


def speak(voice: Voice, *keys: str) -> list[OutboxRow]:
    """Says and writes; returns the rows in the order of the keys."""
    for key in keys:
        voice.say(key, gift(), 0)
    rows = {row.key: row for row in voice.staged()}
    voice.written()
    return [rows[key] for key in keys]


def applied(row: OutboxRow) -> Applied:
    return Applied(event=row.id, fee=1)


def test_what_is_said_is_a_signed_event_with_the_next_nonce() -> None:
    """The voice adds chain, sender, nonce and gas price, and signs; every node can read it."""
    first, second = speak(fresh(nonce=7), "a", "b")
    event = read(first.raw).event
    assert event == TransferSent(chain="testnet", sender=KEY.address, nonce=7, gas_price=3, to=FRIEND, amount=1)
    assert (first.nonce, second.nonce) == (7, 8)
    assert read(first.raw).id == first.id


def test_a_draft_may_name_its_own_gas_price() -> None:
    """A gas price in the draft wins over that of the voice."""
    voice = fresh()
    voice.say("a", draft(TransferSent, to=FRIEND, amount=1, gas_price=9), 0)
    assert read(voice.staged()[0].raw).event.gas_price == 9


def test_a_draft_that_is_no_event_is_refused_before_anything_is_staged() -> None:
    """What no node could read uses no nonce."""
    voice = fresh()
    with pytest.raises(Refused, match="MALFORMED"):
        voice.check(draft(TransferSent, to="nobody", amount=1))
    with pytest.raises(Refused, match="MALFORMED"):
        voice.say("a", draft(TransferSent, to=FRIEND, amount=0), 0)


def test_nothing_is_sent_before_it_is_written() -> None:
    """A staged row is not due; a written one is."""
    voice = fresh()
    voice.say("a", gift(), 0)
    assert voice.due(0) == []
    voice.written()
    assert [row.key for row in voice.due(0)] == ["a"]


def test_it_is_sent_again_with_growing_delays_until_it_is_heard() -> None:
    """After each sending it rests twice as long, up to a limit; once final it is never due again."""
    voice = fresh()
    (row,) = speak(voice, "a")
    now, waits = 0, []
    for _ in range(6):
        voice.sent(row, now, None)
        due = next(ms for ms in range(now, now + 100_000, 500) if voice.due(ms))
        waits.append(due - now)
        now = due
    assert waits == [RESEND_FIRST_MS, 4_000, 8_000, RESEND_LONGEST_MS, RESEND_LONGEST_MS, RESEND_LONGEST_MS]
    voice.hear(row.id, row.nonce, applied(row), 1)
    assert voice.due(now + 1_000_000) == []


def test_hearsay_puts_off_nothing() -> None:
    """Whoever says time and again that an event was turned away does not keep it from being sent, nor from doubt."""
    voice = fresh()
    (row,) = speak(voice, "a")
    voice.asked()
    voice.sent(row, 0, None)
    for now_ms in range(0, RESEND_FIRST_MS, 100):
        voice.turned_away(row.id, MempoolFull(limit=1, needed_gas_price=2), now_ms)
    assert voice.due(RESEND_FIRST_MS) == [row]
    voice.turned_away(row.id, MempoolFull(limit=1, needed_gas_price=2), RESEND_FIRST_MS)
    assert voice.due(RESEND_FIRST_MS) == [row]
    assert voice.doubts(OVERDUE_MS + 1)


def test_what_could_not_be_sent_is_soon_tried_again() -> None:
    """An error of the bus costs half a second, not a whole resend delay."""
    voice = fresh()
    (row,) = speak(voice, "a")
    voice.sent(row, 0, Unreachable("away"))
    assert voice.due(RETRY_MS - 1) == []
    assert voice.due(RETRY_MS) == [row]


def test_only_so_many_are_in_flight() -> None:
    """Beyond the window nothing is due until the lowest nonce is used."""
    voice = fresh()
    rows = speak(voice, *(str(number) for number in range(WINDOW + 5)))
    assert voice.due(0) == rows[:WINDOW]
    voice.hear(rows[0].id, 0, applied(rows[0]), 1)
    assert voice.due(0) == rows[1 : WINDOW + 1]


def test_a_final_event_is_told_once() -> None:
    """Heard again, it is news to nobody; the row keeps its outcome."""
    voice = fresh()
    (row,) = speak(voice, "a")
    assert voice.hear(row.id, 0, applied(row), 5) == Heard("a", row.id, 0, applied(row), 5)
    (final,) = voice.staged()
    assert (final.state, final.height, final.raw) == ("final", 5, b"")
    assert voice.hear(row.id, 0, applied(row), 5) is None


def test_an_event_that_lost_its_nonce_is_signed_anew_behind_the_others() -> None:
    """When a final block used the nonce for another event, what was said keeps its key and gets the next free nonce."""
    voice = fresh()
    first, second = speak(voice, "a", "b")
    assert voice.hear("f" * 64, 0, Applied(event="f" * 64, fee=0), 1) is None
    (again,) = voice.staged()
    assert (again.key, again.nonce, again.draft) == ("a", 2, first.draft)
    assert again.id != first.id
    voice.written()
    assert voice.due(0) == [second, again]


def test_a_lost_nonce_that_is_reported_late_changes_nothing() -> None:
    """A report about an event that was signed anew in the meantime is stale."""
    voice = fresh()
    (first,) = speak(voice, "a")
    voice.lost(first.id, 0)
    voice.written()
    voice.lost(first.id, 1)
    assert voice.staged() == []


def test_events_of_others_with_the_same_key_push_the_next_nonce() -> None:
    """A nonce that somebody else has used is not given out."""
    voice = fresh()
    voice.hear("e" * 64, 4, Applied(event="e" * 64, fee=0), 1)
    assert speak(voice, "a")[0].nonce == 5


def test_a_restart_says_the_same() -> None:
    """A voice made of the written rows sends the same bytes and goes on with the next nonce."""
    rows = speak(fresh(), "a", "b")
    again = fresh(0, rows)
    assert again.due(0) == rows
    spoken = again.find("a")
    assert spoken is not None
    assert spoken.event == rows[0].id
    assert speak(again, "c")[0].nonce == 2


PASSING: list[tuple[AnyRefusal, bool]] = [
    (NonceTooLow(expected=5, found=0), True),
    (NonceTooFar(expected=0, found=99), True),
    (NonceGap(expected=0, found=1), True),
    (NonceTaken(pending="a" * 64, needed_gas_price=4), True),
    (GasPriceTooLow(minimum=5, found=3), False),
    (MempoolFull(limit=1, needed_gas_price=4), False),
    (SenderLimitExceeded(limit=1), False),
    (Expired(waited_ms=1), False),
    (InsufficientBalance(needed=5, available=0), False),
    (Malformed(detail="a lie"), False),
    (BadSignature(sender=KEY.address), False),
    (WrongChain(expected="other", found="testnet"), False),
]


@pytest.mark.parametrize(("refusal", "asks"), PASSING)
def test_hearsay_never_drops_an_event(refusal: AnyRefusal, asks: bool) -> None:
    """Whatever an unsigned refusal says, the event still waits and is sent again; about nonces the ledger is asked."""
    voice = fresh()
    (row,) = speak(voice, "a")
    voice.sent(row, 0, None)
    told = voice.turned_away(row.id, refusal, 100)
    assert told is not None
    assert not told.given_up
    assert voice.staged() == []
    assert voice.doubts(100) == asks
    assert voice.due(100 + RESEND_FIRST_MS) == [row]


def test_who_lacks_coins_is_warned() -> None:
    """A miner without coins would else wait for its registration without a word; other refusals pass by themselves."""
    voice = fresh()
    (row,) = speak(voice, "a")
    with capture_logs() as logged:
        voice.turned_away(row.id, InsufficientBalance(needed=5, available=1), 0)
        voice.turned_away(row.id, MempoolFull(limit=1, needed_gas_price=2), 0)
    assert [line["log_level"] for line in logged] == ["warning", "info"]
    assert (logged[0]["address"], logged[0]["needed"], logged[0]["available"]) == (KEY.address, 5, 1)


def test_hearsay_about_strangers_is_ignored() -> None:
    """A refusal of an event that does not wait here changes nothing."""
    voice = fresh()
    assert voice.turned_away("b" * 64, NonceTooLow(expected=1, found=0), 0) is None
    assert not voice.doubts(0)


def broken(row: OutboxRow) -> OutboxRow:
    """A row whose event no node can accept: the signature is another's."""
    stranger = Key(b"s" * 32).sign(b"something else")
    return structs.replace(row, raw=wrap(parse(row.raw).body_bytes, stranger))


def test_an_event_is_given_up_when_our_own_check_agrees() -> None:
    """Then its nonce goes to the next that is said."""
    rows = speak(fresh(), "a", "b")
    voice = fresh(0, [rows[0], broken(rows[1])])
    told = voice.turned_away(rows[1].id, BadSignature(sender=KEY.address), 0)
    assert told is not None
    assert told.given_up
    assert voice.staged()[0].state == "refused"
    voice.written()
    assert speak(voice, "c")[0].nonce == 1


def test_a_given_up_event_does_not_hold_up_those_behind_it() -> None:
    """Its nonce is used by an event that does nothing, so nothing that was signed has to be signed anew."""
    rows = speak(fresh(), "a", "b")
    voice = fresh(0, [broken(rows[0]), rows[1]])
    voice.turned_away(rows[0].id, BadSignature(sender=KEY.address), 0)
    voice.written()
    filler, second = voice.due(0)
    event = read(filler.raw).event
    assert isinstance(event, TransferSent)
    assert (event.nonce, event.to, event.sender) == (0, KEY.address, KEY.address)
    assert second == rows[1]


def test_it_asks_when_something_takes_too_long() -> None:
    """An event that was sent and not heard of for a while is a reason to ask, one that was just sent is not."""
    voice = fresh()
    (row,) = speak(voice, "a")
    voice.sent(row, 50, None)
    assert not voice.doubts(50 + OVERDUE_MS)
    assert voice.doubts(51 + OVERDUE_MS)


def test_a_new_voice_asks_first() -> None:
    """What happened while the process was down is not known."""
    voice = Voice(KEY, "testnet", 3, [], 0)
    assert voice.doubts(0)
    voice.asked()
    assert not voice.doubts(0)


def test_events_below_the_ledgers_nonce_are_in_question() -> None:
    """They are not sent any more, and the ledger is asked about each."""
    voice = fresh()
    rows = speak(voice, "a", "b", "c")
    voice.used_until(2)
    assert voice.behind(2) == rows[:2]
    assert voice.due(0) == rows[2:]
    assert voice.doubts(0)


@pytest.mark.parametrize("seed", range(40))
def test_two_processes_with_one_key_say_everything_exactly_once(seed: int) -> None:
    """However blocks, losses and restarts fall, each key of each process is in the ledger once."""
    chance = random.Random(seed)
    voices = [fresh(), fresh()]
    stores: list[dict[str, OutboxRow]] = [{}, {}]
    ledger: list[tuple[str, str]] = []  # (id, key)
    pool: dict[int, list[OutboxRow]] = {}
    said = [0, 0]

    def write(index: int) -> None:
        stores[index] |= {row.key: row for row in voices[index].staged()}
        voices[index].written()

    def act(index: int) -> None:
        if said[index] < 12 and chance.random() < 0.5:
            voices[index].say(f"{index}/{said[index]}", gift(100 * index + said[index] + 1), 0)
            said[index] += 1
            write(index)
        if chance.random() < 0.7:
            for row in voices[index].due(0):
                if chance.random() < 0.8:
                    pool.setdefault(row.nonce, []).append(row)
        if chance.random() < 0.15:
            waiting = [row for row in stores[index].values() if row.state == "waiting"]
            voices[index] = fresh(min((row.nonce for row in waiting), default=len(ledger)), waiting)

    def hear(index: int) -> None:
        """The whole feed again, as after a restart from zero: hearing is idempotent."""
        for nonce, (event_id, _) in enumerate(ledger):
            voices[index].hear(event_id, nonce, Applied(event=event_id, fee=0), 1)
        write(index)

    for _ in range(2_000):
        act(chance.randrange(2))
        if chance.random() < 0.5 and (rows := pool.get(len(ledger))):
            row = chance.choice(rows)
            ledger.append((row.id, row.key))
        if chance.random() < 0.3:
            hear(chance.randrange(2))
    assert sorted(key for _, key in ledger) == sorted(f"{index}/{number}" for index in (0, 1) for number in range(12))
