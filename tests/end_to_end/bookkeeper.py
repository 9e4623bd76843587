"""A second set of books, kept from the log's JSON alone, to compare the ledger with.

It shares nothing with the rules: it decides by itself which blocks are final, which events had an effect, and who gets
what, and it writes all of it as movements from one account to another. It is plain where the rules are careful: it
takes signatures for right (an audit checks them), and knows only the events that jobs and payments need.
"""

import json
from collections import Counter
from hashlib import sha256
from typing import Any

GENESIS, BURNED = "genesis", "burned"
GAS = {
    "transfer.sent": 1_000,
    "miner.registered": 10_000,
    "bond.deposited": 2_000,
    "bond.unlocked": 2_000,
    "bond.withdrawn": 2_000,
    "attestation.claimed": 20_000,
    "exam.opened": 10_000,
    "exam.committed": 5_000,
    "exam.revealed": 5_000,
    "exam.judged": 10_000,
    "job.submitted": 10_000,
    "job.assigned": 5_000,
    "job.committed": 5_000,
    "job.revealed": 8_000,
    "job.settled": 10_000,
    "job.failed": 5_000,
    "job.refunded": 5_000,
    "job.cancelled": 5_000,
}
FREE = (
    "exam.opened",
    "exam.committed",
    "exam.revealed",
    "exam.judged",
    "job.assigned",
    "job.committed",
    "job.revealed",
    "job.settled",
    "job.failed",
    "job.refunded",
)


def digest(record: dict[str, Any]) -> str:
    """SHA-256 of the record's canonical JSON."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode()).hexdigest()


class Bookkeeper:
    """``balances`` by address, and by job id what is locked for it; ``ends`` says how often each job ended, and how."""

    def __init__(self, genesis: dict[str, Any]) -> None:
        self.genesis = genesis
        self.parameters = genesis["parameters"]
        self.trust = self.parameters.get("trust")
        self.balances: Counter[str] = Counter()
        for allocation in genesis["allocations"]:
            self._move(allocation["balance"], GENESIS, allocation["address"])
        self.height = 0
        self.time_ms = genesis["time_ms"]
        self.head = digest(genesis)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.ends: dict[str, list[str]] = {}
        self.miners: dict[str, dict[str, Any]] = {}
        self.claims: dict[str, dict[str, Any]] = {}
        self.nonces: Counter[str] = Counter()
        self._blocks: dict[str, dict[str, Any]] = {}
        self._votes: dict[str, set[str]] = {}

    def add(self, kind: str, data: bytes) -> dict[str, Any] | None:
        """Takes the next message of the log; returns the block that it makes final."""
        message = json.loads(data)
        if kind == "block":
            if message["header"]["parent"] == self.head:
                self._blocks[digest(message["header"])] = message
            return None
        vote = message["vote"]
        voters = self._votes.setdefault(vote["block"], set())
        voters.add(vote["validator"])
        if vote["block"] not in self._blocks or 3 * len(voters) < 2 * len(self.genesis["validators"]):
            return None
        block = self._blocks[vote["block"]]
        self.head = vote["block"]
        self._blocks.clear()
        self._votes.clear()
        self._book(block)
        return block

    @property
    def unfinished(self) -> list[str]:
        """Ids of the jobs that have not ended."""
        return [job for job, ends in self.ends.items() if not ends]

    def _move(self, amount: int, giver: str, taker: str) -> None:
        self.balances[giver] -= amount
        self.balances[taker] += amount
        if giver != GENESIS and self.balances[giver] < 0:
            raise AssertionError(f"{giver} has given {amount} more than it had")

    def _book(self, block: dict[str, Any]) -> None:
        header = block["header"]
        self.height, self.time_ms = header["height"], header["time_ms"]
        due = sorted((job["deadline"], name) for name, job in self.jobs.items() if self._is_late(job))
        for _, job in due[: self.parameters["max_block_events"]]:
            self._deadline_passed(job)
        fees = 0
        for envelope in block["events"]:
            event = envelope["body"]
            sender, name = event["sender"], event["type"]
            if event["nonce"] != self.nonces[sender]:
                raise AssertionError(f"{sender} used nonce {event['nonce']} instead of {self.nonces[sender]}")
            self.nonces[sender] += 1
            fee = GAS[name] * event["gas_price"]
            if name not in FREE:
                self._move(fee, sender, "fees")
                fees += fee
            done = getattr(self, "_" + name.replace(".", "_"))(event, digest(event))
            if name in FREE and not done:
                self._move(fee, sender, "fees")
                fees += fee
        burned = fees * self.parameters["fee_burn_bps"] // 10_000
        self._move(burned, "fees", BURNED)
        self._move(fees - burned, "fees", header["proposer"])

    # What each event does. All return whether it did anything.

    def _transfer_sent(self, event: dict[str, Any], name: str) -> bool:
        done = event["to"] != event["sender"] and event["amount"] <= self.balances[event["sender"]]
        if done:
            self._move(event["amount"], event["sender"], event["to"])
        return done

    def _miner_registered(self, event: dict[str, Any], name: str) -> bool:
        new = {"running": 0, "wrong": 0, "banned": False, "withdrawable": 0}
        price = next(offer["unit_price"] for offer in event["offers"] if offer["service"] == "matmul.int8")
        known = self.miners.setdefault(event["sender"], new)
        known |= {"price": price, "capacity": event["capacity"]}
        return True

    # Coins of a bond are on the account bond/<miner>, those on their way out on unlocked/<miner>.

    def _bond_deposited(self, event: dict[str, Any], name: str) -> bool:
        sender, amount = event["sender"], event["amount"]
        miner = self.miners.get(sender)
        if self.trust is None or miner is None or miner["banned"] or amount > self.balances[sender]:
            return False
        self._move(amount, sender, f"bond/{sender}")
        return True

    def _bond_unlocked(self, event: dict[str, Any], name: str) -> bool:
        sender, amount = event["sender"], event["amount"]
        if not self._may_take_out(sender) or amount > self.balances[f"bond/{sender}"]:
            return False
        self._move(amount, f"bond/{sender}", f"unlocked/{sender}")
        self.miners[sender]["withdrawable"] = self.time_ms + self.trust["unbonding_ms"]
        return True

    def _bond_withdrawn(self, event: dict[str, Any], name: str) -> bool:
        sender = event["sender"]
        unlocked = self.balances[f"unlocked/{sender}"]
        if not self._may_take_out(sender) or not unlocked or self.time_ms < self.miners[sender]["withdrawable"]:
            return False
        self._move(unlocked, f"unlocked/{sender}", sender)
        return True

    # Exams: only who may say what when, since that decides who pays. A miner's claim has its GPUs, and, while an exam
    # is on, its id, its stage and its deadline.

    def _attestation_claimed(self, event: dict[str, Any], name: str) -> bool:
        sender, gpus = event["sender"], [gpu["uuid"] for gpu in event["evidence"]["gpus"]]
        known = self.claims.get(sender, {"exam": None})
        if self.trust is None or sender not in self.miners or len(set(gpus)) < len(gpus) or known["exam"]:
            return False
        self.claims[sender] = {"gpus": gpus, "exam": None}
        return True

    def _exam_opened(self, event: dict[str, Any], name: str) -> bool:
        named = event["miners"]
        known = [self.claims.get(address) for address in named]
        free = all(claim and claim["gpus"] and not claim["exam"] for claim in known)
        if event["sender"] not in self.genesis["coordinators"] or len(set(named)) < len(named) or not free:
            return False
        for address in named:
            deadline = self.time_ms + self.trust["exam_window_ms"]
            self.claims[address] |= {"exam": name, "stage": "opened", "deadline": deadline}
        return True

    def _exam_step(self, event: dict[str, Any], before: str, after: str, entries: str, most: list[str]) -> bool:
        claim = self.claims.get(event["sender"], {"exam": None})
        if claim["exam"] != event["exam"] or claim["stage"] != before or claim["deadline"] <= self.time_ms:
            return False
        said = [entry["gpu"] for entry in event[entries]]
        if said != [gpu for gpu in most if gpu in said]:
            return False
        claim |= {"stage": after, entries: said}
        return True

    def _exam_committed(self, event: dict[str, Any], name: str) -> bool:
        gpus = self.claims.get(event["sender"], {"gpus": []})["gpus"]
        done = all(answer["rows"] >= self.trust["exam"]["min_rows"] for answer in event["answers"])
        if not done or not self._exam_step(event, "opened", "committed", "answers", gpus):
            return False
        self.claims[event["sender"]]["deadline"] = self.time_ms + self.trust["exam_reveal_ms"]
        return True

    def _exam_revealed(self, event: dict[str, Any], name: str) -> bool:
        gpus = self.claims.get(event["sender"], {}).get("answers", [])
        return self._exam_step(event, "committed", "revealed", "openings", gpus)

    def _exam_judged(self, event: dict[str, Any], name: str) -> bool:
        verdict = event["verdict"]
        claim = self.claims.get(verdict["miner"], {"exam": None})
        if event["sender"] not in self.genesis["coordinators"] or claim["exam"] != verdict["exam"]:
            return False
        opened = claim["openings"] if claim["stage"] == "revealed" else []
        if claim["stage"] != "revealed" and self.time_ms < claim["deadline"]:
            return False
        if [gpu["gpu"] for gpu in verdict["gpus"]] != claim["gpus"]:
            return False
        if any(gpu["result"] not in ("absent", "late") and gpu["gpu"] not in opened for gpu in verdict["gpus"]):
            return False
        claim["exam"] = None
        return True

    def _is_trusted(self, address: str) -> bool:
        return not self.miners[address]["banned"] and self.balances[f"bond/{address}"] >= self.trust["min_bond"]

    def _may_take_out(self, sender: str) -> bool:
        miner = self.miners.get(sender)
        return self.trust is not None and miner is not None and not miner["banned"] and not miner["running"]

    def _punish(self, address: str) -> None:
        if self.trust is None:
            return
        miner = self.miners[address]
        bond, unlocked = self.balances[f"bond/{address}"], self.balances[f"unlocked/{address}"]
        share = -(-(bond + unlocked) * self.trust["slash_bps"] // 10_000)
        self._move(min(share, bond), f"bond/{address}", BURNED)
        self._move(share - min(share, bond), f"unlocked/{address}", BURNED)
        miner["wrong"] += 1
        miner["banned"] |= 0 < self.trust["ban_after"] <= miner["wrong"]

    def _job_submitted(self, event: dict[str, Any], name: str) -> bool:
        work, escrow = event["work"], event["escrow"]
        if work["a"]["columns"] != work["b"]["rows"] or escrow > self.balances[event["sender"]]:
            return False
        self._move(escrow, event["sender"], name)
        expires = self.time_ms + event["lifetime_ms"]
        self.jobs[name] = {"event": event, "deadline": expires, "expires": expires, "state": "open", "tried": []}
        self.ends[name] = []
        return True

    def _job_assigned(self, event: dict[str, Any], name: str) -> bool:
        job, miner = self.jobs.get(event["job"]), self.miners.get(event["miner"])
        if job is None or miner is None or event["sender"] not in self.genesis["coordinators"]:
            return False
        work = job["event"]["work"]
        units = -(-work["a"]["rows"] * work["a"]["columns"] * work["b"]["columns"] // 1_000_000)
        free = (
            job["state"] == "open"
            and not self._is_late(job)
            and event["miner"] not in job["tried"]
            and miner["running"] < miner["capacity"]
            and (self.trust is None or self._is_trusted(event["miner"]))
        )
        if not free or event["price"] != units * miner["price"] or event["price"] > job["event"]["escrow"]:
            return False
        miner["running"] += 1
        deadline = self.time_ms + job["event"]["timeout_ms"]
        job |= {"state": "assigned", "miner": event["miner"], "price": event["price"], "deadline": deadline}
        return True

    def _job_committed(self, event: dict[str, Any], name: str) -> bool:
        return self._step(event, "assigned", "committed", "reveal_timeout_ms")

    def _job_revealed(self, event: dict[str, Any], name: str) -> bool:
        return self._step(event, "committed", "revealed", "verify_timeout_ms")

    def _step(self, event: dict[str, Any], before: str, after: str, timeout: str) -> bool:
        job = self.jobs.get(event["job"])
        if job is None or job["state"] != before or job["miner"] != event["sender"] or self._is_late(job):
            return False
        job |= {"state": after, "deadline": self.time_ms + self.parameters[timeout]}
        return True

    def _job_settled(self, event: dict[str, Any], name: str) -> bool:
        job = self.jobs.get(event["job"])
        if job is None or job["state"] != "revealed" or event["sender"] not in self.genesis["coordinators"]:
            return False
        if self._is_late(job):
            return False
        share = job["price"] * self.parameters["coordinator_bps"] // 10_000
        self._move(share, event["job"], event["sender"])
        self._move(job["price"] - share, event["job"], job["miner"])
        self.miners[job["miner"]]["running"] -= 1
        self._end(event["job"], "settled")
        return True

    def _job_failed(self, event: dict[str, Any], name: str) -> bool:
        job = self.jobs.get(event["job"])
        if job is None or job["state"] not in ("assigned", "committed", "revealed") or job["miner"] != event["miner"]:
            return False
        gives_up = job["state"] == "assigned" and event["sender"] == job["miner"]
        if not gives_up and event["sender"] not in self.genesis["coordinators"]:
            return False
        wrong = job["state"] == "revealed" and event["reason"] == "RESULT_WRONG"
        self._attempt_failed(event["job"])
        if wrong:
            self._punish(event["miner"])
        return True

    def _job_refunded(self, event: dict[str, Any], name: str) -> bool:
        job = self.jobs.get(event["job"])
        if job is None or job["state"] != "open" or event["sender"] not in self.genesis["coordinators"]:
            return False
        self._end(event["job"], "refunded")
        return True

    def _job_cancelled(self, event: dict[str, Any], name: str) -> bool:
        job = self.jobs.get(event["job"])
        if job is None or job["state"] != "open" or event["sender"] != job["event"]["sender"]:
            return False
        self._end(event["job"], "cancelled")
        return True

    def _is_late(self, job: dict[str, Any]) -> bool:
        """Its deadline has come, and a later block than this one may be the first to have room to act on it."""
        return job["deadline"] is not None and job["deadline"] <= self.time_ms

    def _deadline_passed(self, name: str) -> None:
        job = self.jobs[name]
        if job["state"] == "open":
            self._end(name, "refunded")
        elif job["state"] == "revealed":
            self.miners[job["miner"]]["running"] -= 1
            self._end(name, "refunded")
        else:
            self._attempt_failed(name)

    def _attempt_failed(self, name: str) -> None:
        job = self.jobs[name]
        self.miners[job["miner"]]["running"] -= 1
        job["tried"].append(job["miner"])
        if len(job["tried"]) >= self.parameters["max_attempts"] or job["expires"] <= self.time_ms:
            self._end(name, "refunded")
        else:
            job |= {"state": "open", "deadline": job["expires"]}

    def _end(self, name: str, how: str) -> None:
        """What is still locked goes back to the owner."""
        job = self.jobs[name]
        self._move(self.balances[name], name, job["event"]["sender"])
        job |= {"state": how, "deadline": None}
        self.ends[name].append(how)
