"""Every verb against a real network of processes."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.actors.command_line.devnet_process import ROOT, DevnetProcess, command, environment

NO_JOB = "0" * 64


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevnetProcess]:
    process = DevnetProcess(tmp_path_factory.mktemp("devnet"), "--proposers", "1", "--miners", "2")
    try:
        yield process
    finally:
        process.close()


@pytest.fixture
def assay(assay: Any, devnet: DevnetProcess, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command line in the devnet's directory."""
    monkeypatch.setenv("ASSAY_HOME", str(devnet.home))
    return assay


def answer(ended: Any) -> Any:
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def submit(assay: Any, *more: str) -> dict[str, Any]:
    """A small job, settled; its receipt."""
    words = ("job", "submit", "matmul.int8", "random:60x50", "random:50x40", *more, "-o", "json")
    receipt: dict[str, Any] = answer(assay(*words))
    return receipt


def test_the_banner_says_what_one_needs(devnet: DevnetProcess) -> None:
    """The banner has URL, chain, genesis, funded accounts, processes, and whether state is kept."""
    banner = devnet.banner
    assert banner["url"].startswith("nats://127.0.0.1:")
    assert banner["thrown_away"] is True
    assert len(banner["genesis"]) == 64
    names = ["nats", "proposer-1", "coordinator", "miner-1", "miner-2", "wallet"]
    assert list(banner["processes"]) == names
    assert len(set(banner["processes"].values())) == len(names)
    assert {entry["name"] for entry in banner["accounts"]} == {"client", "wallet", "coordinator", "miner-1", "miner-2"}


def test_a_job_of_two_files_ends_with_its_receipt_and_the_right_result(assay: Any, tmp_path: Path) -> None:
    """`job submit` uploads two .npy files, follows every state to the receipt; `job result` fetches the product."""
    generator = np.random.default_rng(1)
    a = generator.integers(-128, 128, (70, 90), dtype=np.int8)
    b = generator.integers(-128, 128, (90, 30), dtype=np.int8)
    np.save("a.npy", a)
    np.save("b.npy", b)
    ended = assay("job", "submit", "matmul.int8", "a.npy", "b.npy")
    assert ended.code == 0, ended.err
    for word in ("miners", "verified", "submitted", "assigned", "committed", "revealed", "settled"):
        assert word in ended.err
    assert "\x1b" not in ended.out + ended.err
    job = re.search(r"^job +([0-9a-f]{64})$", ended.out, re.MULTILINE)
    assert job is not None
    assert ended.err.endswith(f"`assay job result {job[1]}` fetches the result.\n")
    assert assay("job", "result", job[1], "c.npy").code == 0
    assert np.array_equal(np.load("c.npy", allow_pickle=False), a.astype(np.int32) @ b.astype(np.int32))


def test_stdout_holds_only_the_receipt(assay: Any) -> None:
    """In JSON mode stdout is one document, whatever was told on the way."""
    found = submit(assay)
    assert found["receipt"]["receipt"]["service"] == "matmul.int8"
    assert [entry["signer_role"] for entry in found["receipt"]["signatures"]] == ["miner", "coordinator"]


def test_ndjson_tells_the_states_as_lines(assay: Any) -> None:
    """With ndjson every step is a line, and the receipt the last of them."""
    ended = assay("job", "submit", "matmul.int8", "random:8x8", "random:8x8", "-o", "ndjson")
    assert ended.code == 0, ended.err
    lines = [json.loads(line) for line in ended.out.splitlines()]
    entries = [line["entry"] for line in lines if "entry" in line]
    assert [entry["outcome"]["result"] for entry in entries] == ["applied"] * 5
    assert "inclusion" in lines[-1]


def test_a_dry_run_neither_signs_nor_sends(assay: Any, devnet: DevnetProcess) -> None:
    """With --dry-run the event and its fee are shown, and the nonce stays."""
    before = answer(assay("account", "-o", "json"))
    planned = answer(assay("job", "submit", "matmul.int8", "random:9x9", "random:9x9", "--dry-run", "-o", "json"))
    assert planned["dry_run"] is True
    assert planned["event"]["nonce"] == before["nonce"]
    assert planned["plan"]["candidates"]
    moved = answer(assay("transfer", devnet.address("wallet"), "1", "--dry-run", "-o", "json"))
    assert (moved["event"]["amount"], moved["fee"]) == (1_000_000, 1_000)
    after = answer(assay("account", "-o", "json"))
    assert (before["nonce"], before["balance"]) == (after["nonce"], after["balance"])


def test_a_job_that_is_paid_too_little_says_so_and_can_be_cancelled(assay: Any) -> None:
    """`job why` names the code and the numbers; after `job cancel` the watch ends with exit code 1."""
    words = ("job", "submit", "matmul.int8", "random:900x900", "random:900x900", "--escrow", "0.01")
    job = answer(assay(*words, "--no-wait", "-o", "json"))["job"]
    waiting = answer(assay("job", "why", job, "-o", "json"))
    assert (waiting["code"], waiting["situation"]) == ("PRICE_TOO_LOW", "open")
    assert "0.729 ASY" in waiting["sentence"]
    assert assay("job", "watch", job, "--for-seconds", "1").code == 6
    dry = answer(assay("job", "cancel", job, "--dry-run", "-o", "json"))
    assert dry["event"]["type"] == "job.cancelled"
    assert assay("job", "cancel", job).code == 0
    watched = assay("job", "watch", job, "-o", "json")
    assert (watched.code, watched.out) == (1, "")
    assert json.loads(watched.err.splitlines()[-1])["code"] == "JOB_UNSUCCESSFUL"
    assert answer(assay("job", "why", job, "-o", "json"))["code"] == "ENDED_CANCELLED"
    balance = answer(assay("account", "-o", "json"))["balance"]
    again = assay("job", "cancel", job)
    assert again.code == 4
    assert "it is cancelled" in again.err
    assert answer(assay("account", "-o", "json"))["balance"] == balance
    assert job in [entry["id"] for entry in answer(assay("job", "list", "--mine", "-o", "json"))]
    assert [entry["id"] for entry in answer(assay("job", "list", "--situation", "cancelled", "-o", "json"))] == [job]


def test_a_miner_is_explained_and_bonds(assay: Any, devnet: DevnetProcess) -> None:
    """`miner explain` has score, standing and terms; `miner bond` moves coins, also while the miner itself works."""
    miner = devnet.address("miner-2")
    explained = answer(assay("miner", "explain", miner, "-o", "json"))
    assert (explained["score"], explained["grade"], explained["admitted"], explained["gpus"]) == (0, "C", True, [])
    assert "claimed no GPUs" in assay("miner", "explain", miner).err
    seed = next(entry["seed_file"] for entry in devnet.banner["accounts"] if entry["name"] == "miner-2")
    own = ("--seed-file", seed, "--yes")
    deposited = assay("miner", "bond", "deposit", "5", *own)
    assert (deposited.code, "lock 5 ASY in your bond" in deposited.out) == (0, True)
    assert assay("miner", "bond", "unlock", "2", *own).code == 0
    waiting = assay("miner", "bond", "withdraw", *own)
    assert waiting.code == 4
    assert "locked for" in waiting.err
    standing = answer(assay("miner", "explain", miner, "-o", "json"))["standing"]
    assert (standing["bond"], standing["unlocked"]) == (3_000_000, 2_000_000)
    stranger = assay("miner", "bond", "deposit", "1", "--yes")
    assert stranger.code == 4
    assert "UNKNOWN_MINER" in stranger.err
    assert assay("miner", "explain", devnet.address("client")).code == 3


def test_a_job_can_ask_for_an_attestation(assay: Any) -> None:
    """No miner of a devnet without GPUs has been measured, and the plan says so."""
    words = ("job", "submit", "matmul.int8", "random:8x8", "random:8x8", "--escrow", "1", "--dry-run", "-o", "json")
    planned = answer(assay(*words, "--grade", "M", "--score", "60"))
    assert planned["event"]["requirement"] == {"grade": "M", "memory_mib": 0, "score": 60}
    assert planned["plan"]["code"] == "NO_MINER_ATTESTED"
    assert answer(assay(*words, "--score", "0"))["plan"]["candidates"]


def test_a_job_that_nobody_can_do_needs_an_escrow_to_be_submitted(assay: Any) -> None:
    """Without a miner to set a price the error says which requirement nobody meets."""
    ended = assay("job", "submit", "matmul.int8", "random:8x8", "random:8x8", "--memory", "16000000")
    assert ended.code == 2
    assert "NO_MINER_WITH_MEMORY" in ended.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("random:8x9", "random:8x8"), 4, "WRONG_SHAPE"),
        (("random:8", "random:8x8"), 2, "not a matrix"),
        (("nowhere.npy", "random:8x8"), 3, "nowhere.npy"),
        (("wide.npy", "random:8x8"), 2, "int64, not int8"),
        (("wide.npy", "random:8x8"), 2, "wide.npy cannot be an operand"),
        (("random:8x8", "random:8x8", "--memory", "99999999", "--escrow", "1"), 2, "requirement.memory_mib"),
    ],
)
def test_operands_are_checked_before_anything_is_sent(assay: Any, words: Any, code: int, said: str) -> None:
    """Files and shapes that cannot be multiplied are refused here, with the reason."""
    np.save("wide.npy", np.zeros((8, 8), dtype=np.int64))
    ended = assay("job", "submit", "matmul.int8", *words)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err


def test_a_transfer_moves_coins_and_names_its_block(assay: Any, devnet: DevnetProcess) -> None:
    """After `transfer` the recipient has the amount, and `block` shows the event."""
    to = devnet.address("coordinator")
    before = answer(assay("account", to, "-o", "json"))["balance"]
    sent = answer(assay("transfer", to, "2.5", "--memo", "thanks", "-o", "json"))
    assert answer(assay("account", to, "-o", "json"))["balance"] == before + 2_500_000
    block = answer(assay("block", str(sent["height"]), "-o", "json"))
    assert sent["event"] in [outcome.get("event") for outcome in block["outcomes"]]
    assert answer(assay("block", block["block"]["hash"], "-o", "json")) == block


def test_an_event_that_the_rules_refuse_ends_with_4(assay: Any, devnet: DevnetProcess) -> None:
    """What the ledger does not allow is told by code, with the numbers."""
    ended = assay("transfer", devnet.address("wallet"), "5000000", "-o", "json")
    problem = json.loads(ended.err.splitlines()[-1])
    assert (ended.code, problem["code"]) == (4, "INSUFFICIENT_BALANCE")
    assert problem["data"]["needed"] > problem["data"]["available"]


def test_what_does_not_exist_ends_with_3(assay: Any) -> None:
    """Unknown jobs, blocks and receipts are not found."""
    for words in (("job", "show"), ("job", "why"), ("receipt",), ("block",), ("verify", "job")):
        assert assay(*words, NO_JOB).code == 3, words


def test_a_receipt_checks_offline_and_a_changed_one_does_not(assay: Any, tmp_path: Path, home: Path) -> None:
    """`verify receipt` passes for what `receipt` printed, and ends with 7 and the check for any change of it."""
    job = submit(assay)["receipt"]["receipt"]["job_id"]
    text = assay("receipt", job, "-o", "json").out
    Path("receipt.json").write_text(text)
    offline = ("--genesis", tmp_path / "genesis.json")
    (tmp_path / "genesis.json").write_bytes(Path(answer_context()["genesis"]).read_bytes())
    checked = answer(assay("verify", "receipt", "receipt.json", *offline, "-o", "json"))
    assert checked["passed"] is True
    assert {check["result"] for check in checked["checks"]} == {"passed"}
    original = json.loads(text)
    for change in (
        lambda found: found["receipt"]["receipt"].update(price=0),
        lambda found: found["receipt"]["signatures"][1].update(found["receipt"]["signatures"][0]),
        lambda found: found["settlement"]["state"]["value"].update(escrow=1),
        lambda found: found["inclusion"]["block"]["header"].update(height=1),
        lambda found: found["inclusion"].update(found["settlement"]),
    ):
        damaged = json.loads(text)
        change(damaged)
        assert damaged != original
        Path("damaged.json").write_text(json.dumps(damaged))
        ended = assay("verify", "receipt", "damaged.json", *offline)
        assert ended.code == 7
        assert "FAILED" in ended.out


def answer_context() -> dict[str, Any]:
    import os

    found: dict[str, Any] = json.loads((Path(os.environ["ASSAY_HOME"]) / "context.json").read_text())
    return found


def test_a_receipt_without_genesis_says_what_was_not_checked(
    assay: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a genesis the rest is listed as skipped and nothing has passed, since anyone can sign anything."""
    Path("receipt.json").write_text(json.dumps(submit(assay)["receipt"]))
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "nothing"))
    ended = assay("verify", "receipt", "receipt.json", "-o", "json")
    checked = json.loads(ended.out)
    assert ended.code == 2
    assert "no genesis" in ended.err
    assert checked["passed"] is False
    assert [check["result"] for check in checked["checks"]].count("skipped") == 3


def fetch(assay: Any, what: str) -> Path:
    ended = assay("proof", what, "-o", "json")
    assert ended.code == 0, ended.err
    path = Path("fetched.json")
    path.write_text(ended.out)
    return path


def test_proofs_check_offline(assay: Any) -> None:
    """`verify proof` names what a proof of an event or of a record says."""
    found = submit(assay)
    job = found["receipt"]["receipt"]["job_id"]
    for part, label in (("inclusion", "event"), ("settlement", "key")):
        Path("proof.json").write_text(json.dumps(found[part], indent=2))
        checked = answer(assay("verify", "proof", "proof.json", "-o", "json"))
        assert checked["passed"] is True
        assert label in checked
    assert checked["key"] == f"job/{job}"
    assert assay("verify", "proof", fetch(assay, f"job/{job}")).code == 0
    assert assay("verify", "proof", fetch(assay, "supply")).code == 0
    assert assay("verify", "proof", fetch(assay, job)).code == 0
    Path("proof.json").write_text(json.dumps({"answer": "found", "height": 1, "value": found["inclusion"]}))
    assert assay("verify", "proof", "proof.json").code == 0
    damaged = found["inclusion"]
    damaged["inclusion"]["index"] += 1
    Path("proof.json").write_text(json.dumps(damaged))
    assert assay("verify", "proof", "proof.json").code == 7


def test_the_log_is_exported_audited_and_a_flipped_bit_is_found(assay: Any, tmp_path: Path) -> None:
    """An export audits like the live log; with one bit changed the audit ends with 7 and names the height."""
    submit(assay)
    trailer = answer(assay("log", "export", "log.ndjson", "-o", "json"))["trailer"]
    report = answer(assay("audit", "log.ndjson", "-o", "json"))
    assert report["passed"] is True
    assert report["totals"]["state_root"] == trailer["state_root"]
    assert answer(assay("audit", "-o", "json"))["passed"] is True
    data = bytearray(Path("log.ndjson").read_bytes())
    data[len(data) // 2] ^= 1
    Path("log.ndjson").write_bytes(data)
    ended = assay("audit", "log.ndjson", "-o", "json")
    problem = json.loads(ended.err.splitlines()[-1])
    assert ended.code == 7
    assert problem["code"] == "DIVERGENCE"
    assert problem["data"]["height"] >= 1
    assert json.loads(ended.out)["passed"] is False


def test_anyone_can_repeat_a_verdict(assay: Any, tmp_path: Path) -> None:
    """`verify job` agrees with the ledger, by the network and by an export with blobs; a wrong blob ends with 7."""
    found = submit(assay)["receipt"]["receipt"]
    job = found["job_id"]
    assert answer(assay("verify", "job", job, "-o", "json"))["passed"] is True
    assert assay("log", "export", "log.ndjson").code == 0
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    result = blobs / found["artifact_hash"]
    assert assay("job", "result", job, result).code == 0
    closed = ("--url", "nats://127.0.0.1:1")
    offline = ("verify", "job", job, "--log", "log.ndjson", "--blobs", blobs, *closed, "-o", "json")
    assert answer(assay(*offline))["passed"] is True
    result.write_bytes(result.read_bytes()[:-1] + b"\x01")
    assert assay(*offline).code == 7
    result.unlink()
    missing = assay(*offline)
    assert (missing.code, missing.out) == (3, "")
    assert result.name in missing.err
    assert f"assay job result {job}" in missing.err


def test_the_doctor_finds_nothing_wrong(assay: Any) -> None:
    """On a healthy network every finding is well, and each has words."""
    ended = assay("doctor", "-o", "json")
    findings = {entry["check"]: entry for entry in json.loads(ended.out)}
    assert ended.code == 0, findings
    assert {"nats", "jetstream", "clock", "nodes", "miners", "gpu driver", "disk", "keystore"} <= set(findings)
    assert all(entry["finding"] for entry in findings.values())


def test_the_doctor_says_how_to_mend(assay: Any) -> None:
    """A network that does not answer is a finding with its remedy, and exit code 1."""
    ended = assay("doctor", "--url", "nats://127.0.0.1:1", "--timeout", "1")
    assert ended.code == 1
    assert "FAIL" in ended.out
    assert "assay devnet" in ended.err


def snippets() -> dict[str, str]:
    """The programs of the README by the names in their first lines."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return {block.partition("\n")[0].removeprefix("# "): block for block in blocks}


def run_program(devnet: DevnetProcess, source: str) -> subprocess.CompletedProcess[str]:
    """In the devnet's directory, with an interpreter that looks nowhere else for its imports."""
    return subprocess.run(
        [sys.executable, "-I", "-c", source],
        cwd=devnet.work,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("name", ["sign_it_yourself.py", "ask_a_wallet.py"])
def test_the_programs_of_the_readme_run_as_they_are(devnet: DevnetProcess, name: str) -> None:
    """Both ways of publishing a job, as printed in the README, end with a settled job, without any code of ours."""
    done = run_program(devnet, snippets()[name])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] in ("applied job.settled", "settled")


@pytest.mark.parametrize(
    ("old", "new", "said", "end"),
    [
        ('"memory_mib": 0', '"memory_mib": 10_000_000', "timer deadline", "the job ended without a result"),
        ('"gas_price": 1', '"gas_price": 1_000_000_000', "refused", "the job was refused"),
        ('"escrow": 1_000_000', '"escrow": 10**14', "failed job.submitted", "the job ended without a result"),
    ],
    ids=["nobody takes it", "its fee cannot be paid", "its escrow cannot be paid"],
)
def test_the_program_of_the_readme_ends_with_its_job(
    devnet: DevnetProcess, old: str, new: str, said: str, end: str
) -> None:
    """A job that ends without a result ends the program too, with a word about it and exit code 1."""
    source = snippets()["sign_it_yourself.py"].replace('"lifetime_ms": 600_000', '"lifetime_ms": 500')
    assert old in source
    done = run_program(devnet, source.replace(old, new))
    assert (done.returncode, done.stderr.strip()) == (1, end)
    assert done.stdout.splitlines()[-1].startswith(said)


def test_the_readme_has_no_other_programs() -> None:
    """Every Python program of the README is run by the test above."""
    assert sorted(snippets()) == ["ask_a_wallet.py", "sign_it_yourself.py"]


def test_a_process_that_dies_is_shown_and_started_again(devnet: DevnetProcess, assay: Any) -> None:
    """After `kill -9` of a miner the devnet says so, and jobs go on."""
    import os
    import signal

    os.kill(devnet.banner["processes"]["miner-1"], signal.SIGKILL)
    assert submit(assay)["receipt"]["receipt"]["units"] == 1
    assert "miner-1 has ended with exit code -9; it is started again" in devnet.errors.read_text()


def test_a_pipe_that_closes_is_no_error(devnet: DevnetProcess) -> None:
    """A reader that has enough ends the command quietly."""
    words = " ".join(command("miner", "list", "-o", "ndjson"))
    done = subprocess.run(
        ["/bin/sh", "-c", f"{words} | head -c 1 >/dev/null"],
        cwd=devnet.work,
        env=environment(devnet.home),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
