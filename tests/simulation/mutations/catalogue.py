"""The planted defects: in the rules, in nodes and validators, in actors and what they remember.

Each is a mistake that somebody could make. Defects that nobody could notice are none: where a place is guarded twice,
as an event's one key in the wallet and in the outbox, the defect takes both guards away.
"""

from tests.simulation.mutations.mutation import Mutation

MUTATIONS = (
    # The rules.
    Mutation(
        name="unsigned events in blocks",
        what="a block's events are not checked for their signatures",
        where="projections.blocks:read_events",
        changes=(("bad = first_bad_signature([events[index] for index in unknown], threads)", "bad = None"),),
        seed=9,
    ),
    Mutation(
        name="forged votes",
        what="a vote counts for whomever it names, whoever signed it",
        where="projections.chain:Chain._add_vote",
        changes=(("elif not vote_signature_holds(signed):", "elif False:"),),
        seed=15,
    ),
    Mutation(
        name="half a quorum",
        what="half of the power makes a block final",
        where="projections.validators:Validators.is_quorum",
        changes=((">= 2 * self.total_power", ">= self.total_power"),),
        seed=0,
    ),
    Mutation(
        name="wrong state root",
        what="nobody compares the state root of a block with that of its own execution",
        where="projections.blocks:result_fault",
        changes=(("if header.state_root != executed.state_root:", "if False:"),),
        seed=9,
    ),
    Mutation(
        name="block taken at its word",
        what="nothing that a header says of the result is compared with the execution",
        where="projections.blocks:execute",
        changes=(("return result_fault(header, executed, state.parameters) or executed", "return executed"),),
        seed=9,
    ),
    Mutation(
        name="block from the future",
        what="validators vote for a block whatever its time is",
        where="projections.blocks:distance_fault",
        changes=(("if abs(header.time_ms - server_ms) > parameters.max_drift_ms:", "if False:"),),
        seed=48,
    ),
    Mutation(
        name="newest candidate",
        what="the latest valid block of a height is voted for instead of the first",
        where="projections.contest:Contest._reason_to_wait",
        changes=(("if self.candidate is not None:", "if False:"),),
        seed=81,
    ),
    Mutation(
        name="forgotten nonce",
        what="an event without a fee does not use up its nonce",
        where="projections.execute:BlockExecution._charge",
        changes=(("nonce=account.nonce + 1", "nonce=account.nonce + (1 if fee else 0)"),),
        seed=0,
    ),
    Mutation(
        name="fees not burned",
        what="the proposer gets the part of the fees that is to be burned",
        where="projections.execute:BlockExecution._share_fees",
        changes=(("self._fees * self.draft.parameters.fee_burn_bps // 10_000", "0"),),
        seed=0,
    ),
    Mutation(
        name="escrow off by one",
        what="the owner of a settled job gets one micro-ASY too little back, the miner one too much",
        where="projections.jobs:job_settled",
        changes=(
            ("job.escrow - assignment.price)", "job.escrow - assignment.price - 1)"),
            (
                "add_balance(draft, assignment.miner, assignment.price - share)",
                "add_balance(draft, assignment.miner, assignment.price - share + 1)",
            ),
        ),
        seed=0,
    ),
    Mutation(
        name="paid twice",
        what="settling pays the miner twice, the second time out of what is the owner's",
        where="projections.jobs:job_settled",
        changes=(
            ("job.escrow - assignment.price)", "job.escrow - 2 * assignment.price + share)"),
            (
                "add_balance(draft, assignment.miner, assignment.price - share)",
                "add_balance(draft, assignment.miner, 2 * (assignment.price - share))",
            ),
        ),
        seed=0,
    ),
    Mutation(
        name="failed miner tries again",
        what="a job that opens again forgets which miner has failed it",
        where="projections.jobs:end_attempt",
        changes=(("_put_situation(draft, job_id, tried, Open", "_put_situation(draft, job_id, job, Open"),),
        seed=1,
    ),
    Mutation(
        name="anybody cancels",
        what="a job can be cancelled by those who do not own it",
        where="projections.jobs:job_cancelled",
        changes=(("if event.sender != job.owner:", "if False:"),),
        seed=10,
    ),
    Mutation(
        name="deadline not acted on",
        what="a miner that does not reveal keeps the job for ever",
        where="projections.deadlines:deadline_of",
        changes=(
            (
                "isinstance(job.situation, UNFINISHED)",
                "isinstance(job.situation, UNFINISHED) and type(job.situation).__name__ != 'Committed'",
            ),
        ),
        seed=0,
    ),
    Mutation(
        name="miner's place not freed",
        what="a miner whose result nobody verified in time keeps the place of the job",
        where="projections.timers:_fire",
        changes=(("change_counters(draft, situation.assignment.miner, running=-1)", "pass"),),
        seed=22,
    ),
    # Nodes and validators.
    Mutation(
        name="round proposed twice",
        what="a proposer that has not seen its block in the log signs another one for the same round",
        where="actors.proposer:Proposer._turn",
        changes=(("self._said >= (height, turn) or self._node.chain.was_proposed(turn)", "False"),),
        seed=32,
    ),
    Mutation(
        name="vote not on disk",
        what="a validator does not remember what it has voted for when its power was cut",
        where="actors.proposer:Proposer._cast",
        changes=(("await self._node.read_model.remember_vote(signed, candidate.block_bytes)", "pass"),),
        seed=1,
    ),
    Mutation(
        name="proposal not on disk",
        what="a proposer does not remember which rounds it has signed a block for when its power was cut",
        where="actors.proposer:Proposer._append",
        changes=(("await self._node.read_model.remember_proposal(height, turn)", "pass"),),
        seed=177,
    ),
    Mutation(
        name="lost blocks are not put back",
        what="what a log has lost stays lost, although validators have it on their disks",
        where="actors.proposer:Proposer._say_kept_again",
        changes=(("while node.kept:", "while False:"),),
        seed=3,
    ),
    Mutation(
        name="lost checkpoint",
        what="rows are written without the place in the log that they follow from",
        where="projections.read_model_rows:_write",
        changes=(('(rows.position, "position")', '(0, "position")'),),
        seed=0,
    ),
    Mutation(
        name="rows in two transactions",
        what="a block's rows and the state after it are not written together",
        where="projections.read_model_rows:_write",
        changes=(
            (
                '    db.executemany(\n        "INSERT INTO records',
                (
                    '    db.execute("COMMIT")\n    db.execute("BEGIN IMMEDIATE")\n'
                    '    db.executemany(\n        "INSERT INTO records'
                ),
            ),
        ),
        seed=17,
    ),
    Mutation(
        name="feed skips a height",
        what="a feed begins at the newest block after a restart, not where it was",
        where="actors.feed:Feed.run",
        changes=(("await self._model.mark(MARK) or 0", "self._written.value"),),
        seed=39,
    ),
    Mutation(
        name="mark before what it marks",
        what="the feed notes that it has told of a block before it has",
        where="actors.feed:Feed.run",
        changes=(
            (
                "            await self._publish(height)\n",
                "            await self._model.set_mark(MARK, height)\n            await self._publish(height)\n",
            ),
        ),
        seed=50,
    ),
    Mutation(
        name="inbox settled too early",
        what="an event's place in the inbox is freed when it waits in the mempool, which is only in memory",
        where="actors.admission:Admission._add",
        changes=(
            (
                "self._tokens[signed.id] = (message.time_ns, message.token)",
                "self._tokens[signed.id] = (message.time_ns, message.token)\n        self._free.append(message.token)",
            ),
        ),
        seed=0,
    ),
    Mutation(
        name="dropped acknowledgements",
        what="places in the inbox are never freed",
        where="actors.admission:Admission.free_places",
        changes=(("await self._reader.settle(free)", "pass"),),
        seed=9,
    ),
    Mutation(
        name="forged event admitted",
        what="a mempool takes an event without looking at its signature, and believes it later",
        where="events.envelope:signature_holds",
        changes=(("return verify(signed.event.sender, EVENT_DOMAIN + signed.body_bytes, signed.sig)", "return True"),),
        seed=0,
    ),
    # Actors with an outbox.
    Mutation(
        name="outbox forgotten",
        what="what waits in the outbox is not sent after a restart",
        where="actors.runtime:Runtime.start",
        changes=(
            (
                "voice = Voice(speaking.key, bus.chain, speaking.gas_price, waiting, nonce)",
                "voice = Voice(speaking.key, bus.chain, speaking.gas_price, (), nonce)",
            ),
        ),
        seed=1,
    ),
    Mutation(
        name="rumours believed",
        what="a word about a nonce makes an actor sign anew, before the old signature is dead",
        where="actors.voice:Voice.turned_away",
        changes=(
            (
                "            self._doubtful = True\n",
                "            self.lost(row.id, row.nonce)\n            return None\n",
            ),
        ),
        seed=27,
    ),
    Mutation(
        name="sent before it is written",
        what="an actor's word goes out before it is on its disk",
        where="actors.runtime:Runtime._commit",
        changes=(
            (
                "            await self.store.commit(batch)\n",
                (
                    "            if self.voice is not None and self._speaker is not None:\n"
                    "                self.voice.written()\n"
                    "                self._speaker.wake()\n"
                    "                await self.clock.sleep_ms(1)\n"
                    "            await self.store.commit(batch)\n"
                ),
            ),
        ),
        seed=26,
    ),
    Mutation(
        name="idempotency key ignored",
        what="the wallet signs a request anew when it is asked for it again",
        where="actors.wallet:Wallet._answer",
        changes=(
            ("key = outbox_key(asked.request.key)", "key = f'{outbox_key(asked.request.key)}/{now_ms}'"),
            ("if asked.earlier is not None:", "if False:"),
        ),
        seed=0,
    ),
    Mutation(
        name="wrong result settled",
        what="the coordinator settles whatever the verdict is",
        where="actors.coordinator:Coordinator._say_verdict",
        changes=(("                if judged.reason:\n", "                if judged.reason == 'BAD_INPUT':\n"),),
        seed=22,
    ),
    Mutation(
        name="commitment to nothing",
        what="the miner commits to what it has not computed",
        where="actors.miner:Miner._computed",
        changes=(("root=computed.root", "root=digest(b'')"),),
        seed=0,
    ),
    Mutation(
        name="reveal without delivery",
        what="the miner says that its result can be fetched before it can",
        where="actors.miner:Miner._committed",
        changes=(
            (
                'return self._keep(msgspec.structs.replace(task, stage="committed", commitment=commitment))',
                (
                    'self._keep(msgspec.structs.replace(task, stage="committed", commitment=commitment))\n'
                    '        return [Keep(f"task/{job_id}", canonical(self._tasks[job_id])), *self._reveal(job_id)]'
                ),
            ),
        ),
        seed=0,
    ),
    Mutation(
        name="case not closed",
        what="the coordinator does not hear what became of its word, and waits for ever",
        where="actors.coordinator:Coordinator._heard",
        changes=(
            ("self._cases[job_id] = Case(job_id, case.tries + 1)", "self._cases[job_id] = Case(job_id, case.tries)"),
        ),
        seed=41,
    ),
)
