"""What ``assay`` can be told to do: one table, from which both the overview and the application are made."""

from typing import Final, NamedTuple

SUMMARY: Final = "Assay: signed jobs, verified results, a ledger that anyone can replay."


class Verb(NamedTuple):
    """A command, the sentence in the overview, and the function behind it (imported when it is called).

    One with ``variants`` has a word more, and a function for each.
    """

    name: str
    help: str
    function: str = ""
    variants: tuple["Verb", ...] = ()


class Group(NamedTuple):
    """A word with commands under it."""

    name: str
    help: str
    verbs: tuple[Verb, ...]


SERVICES: Final = (
    Verb("matmul.int8", "The exact product of two matrices of int8.", "work.matmul:matmul_int8"),
    Verb("matmul.fp16-exact", "The exact product of two float16 matrices of integers.", "work.matmul:matmul_fp16"),
    Verb("sha256.tree", "The Merkle tree over a file in chunks.", "work.data:sha256_tree"),
    Verb("histogram", "How many values of a file fall into each bin.", "work.data:histogram"),
    Verb("sort", "The values of a file in ascending order.", "work.data:sort"),
    Verb("image.convolve", "A picture through an integer filter.", "work.pictures:image_convolve"),
    Verb("mandelbrot", "A picture of the Mandelbrot set.", "work.pictures:mandelbrot"),
    Verb("kmeans", "Points parted into clusters.", "work.clusters:kmeans"),
    Verb("montecarlo.option", "The price of an option by random paths.", "work.simulations:montecarlo_option"),
    Verb("nbody", "Bodies that attract each other.", "work.simulations:nbody"),
    Verb("kernel.custom", "A CUDA kernel of your own; not verified.", "work.custom:kernel_custom"),
)

LISTS: Final = (
    Verb("show", "The lists in use.", "miner_lists:show"),
    Verb("update", "Take newer lists from a signed file.", "miner_lists:update"),
    Verb("sign", "Sign lists, as their maintainer.", "miner_lists:sign"),
)

BOND: Final = (
    Verb("deposit", "Lock coins in your bond.", "miner_bond:deposit"),
    Verb("unlock", "Take coins out of your bond; they wait.", "miner_bond:unlock"),
    Verb("withdraw", "Get back what has waited.", "miner_bond:withdraw"),
)

SECTIONS: Final[tuple[tuple[str, tuple[Verb | Group, ...]], ...]] = (
    (
        "Try it",
        (
            Verb("demo", "A whole network on this machine, one real job, its receipt, and an audit.", "local:demo"),
            Verb("devnet", "A whole network on this machine, until Ctrl-C.", "local:devnet"),
        ),
    ),
    (
        "Use a network",
        (
            Group(
                "job",
                "Submit jobs and follow them.",
                (
                    Verb("submit", "Show the plan, submit a job, and follow it to its receipt.", variants=SERVICES),
                    Verb("show", "One job with its history.", "jobs:show"),
                    Verb("list", "Jobs, newest first.", "jobs:list_jobs"),
                    Verb("watch", "Follow a job until it ends.", "jobs:watch"),
                    Verb("why", "Why a job waits, as a code and a sentence.", "jobs:why"),
                    Verb("cancel", "Withdraw a job that no miner has yet.", "jobs:cancel"),
                    Verb("result", "Download the result of a job.", "jobs:result"),
                ),
            ),
            Verb("account", "Balance and nonce of an address.", "ledger:account"),
            Verb("transfer", "Send coins.", "ledger:transfer"),
            Group(
                "miner",
                "See who computes, and what this machine would be worth.",
                (
                    Verb("list", "Miners with their services, prices and free places.", "ledger:miners"),
                    Verb("explain", "A miner's score, level by level.", "miner_explain:explain"),
                    Verb("earnings", "What a miner has earned, by service or by day.", "miner_earnings:earnings"),
                    Verb("bond", "Your bond, as a miner.", variants=BOND),
                    Verb("retire", "Take no new jobs, and end those that you have.", "miner_retire:retire"),
                    Verb("selftest", "What this machine would score, and why not more.", "miner_selftest:selftest"),
                    Verb("lists", "Which cards and drivers are known.", variants=LISTS),
                ),
            ),
            Verb("block", "One block, by height or hash; without either, the newest.", "ledger:block"),
            Verb("receipt", "The receipt of a settled job, with its proofs.", "ledger:receipt"),
        ),
    ),
    (
        "Trust nobody",
        (
            Group(
                "verify",
                "Check what you were given, offline.",
                (
                    Verb("receipt", "Signatures and proofs of a receipt.", "verify:verify_receipt"),
                    Verb("proof", "A proof of an event or of a state record.", "verify:verify_proof"),
                    Verb("job", "Repeat the verdicts on a job's results.", "verify_job:verify_job"),
                    Verb("exam", "Repeat the verdicts of an exam.", "verify_exam:verify_exam"),
                    Verb("log", "Execute an exported log again from genesis, as `audit FILE` does.", "logs:verify_log"),
                    Verb("rows", "Derive a node's file again from its own blocks.", "verify_rows:verify_rows"),
                ),
            ),
            Verb("proof", "A proof of an event or of a state record, to be kept.", "proofs:proof"),
            Verb("audit", "Execute a log again from genesis and compare everything.", "logs:audit"),
            Group("log", "The log as a file.", (Verb("export", "Write the log into a file.", "logs:export"),)),
        ),
    ),
    (
        "Keep keys",
        (
            Group(
                "wallet",
                "Encrypted wallets on this machine.",
                (
                    Verb("create", "Make a wallet with a new key.", "wallets:create"),
                    Verb("list", "The wallets of the keystore.", "wallets:list_wallets"),
                    Verb("address", "The address of a wallet.", "wallets:address"),
                    Verb("import", "Make a wallet of a seed file (SU…).", "wallets:import_seed"),
                    Verb("new-seed", "Make a new key in a plain seed file, for an actor.", "wallets:new_seed"),
                    Verb("export", "Write a wallet's seed, not encrypted, into a file.", "wallets:export_seed"),
                    Verb("sign", "Sign an event offline.", "wallets:sign"),
                    Verb("change-password", "Encrypt a wallet anew.", "wallets:change_password"),
                ),
            ),
        ),
    ),
    (
        "Operate",
        (
            Group(
                "genesis",
                "The file that a network begins with.",
                (
                    Verb("new", "Make the genesis of a network of your own.", "genesis:new"),
                    Verb("show", "What a genesis says, and its hash.", "genesis:show"),
                ),
            ),
            Verb("run", "Run one actor: coordinator, proposer, miner or wallet.", "actors:run_actor"),
            Verb("doctor", "Check this machine and the network, and say how to mend what is wrong.", "doctor:doctor"),
            Group(
                "kernels",
                "The CUDA kernels, compiled.",
                (Verb("build", "Compile all kernels for machines without nvcc.", "kernels:build"),),
            ),
            Group(
                "schemas",
                "The records, for other languages.",
                (Verb("export", "Write the JSON Schemas of all records.", "schema_files:export"),),
            ),
        ),
    ),
)


def overview() -> str:
    """What ``assay --help`` prints; made here, without the imports that only a command needs."""
    lines = [SUMMARY, "", "Usage: assay COMMAND [OPTIONS]", ""]
    for title, entries in SECTIONS:
        lines.append(f"{title}:")
        for entry in entries:
            if isinstance(entry, Group):
                lines += [f"  {entry.name + ' ' + verb.name:<24}{verb.help}" for verb in entry.verbs]
            else:
                lines.append(f"  {entry.name:<24}{entry.help}")
        lines.append("")
    lines += [
        "Every command has --help, and -o table|json|ndjson for its output.",
        "Exit codes: 0 ok, 1 job failed, 2 usage, 3 not found, 4 not allowed, 5 network, 6 time-out,",
        "            7 verification failed, 130 interrupted.",
    ]
    return "\n".join(lines) + "\n"
