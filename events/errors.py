"""Every error of Assay that a person or a program may meet.

    AssayError
    ├── Refused              an event was turned away; carries the typed refusal
    ├── InvalidAddress       not an NKey, or one of another kind
    ├── InvalidKey           a seed that is not one
    ├── BadInput             a file or argument does not fit
    ├── NotFound             what was asked for does not exist
    ├── NotAllowed           a policy or permission forbids it
    ├── DeviceUnavailable    no such device, driver or compiled kernel on this machine
    ├── VerificationFailed   a signature, proof, receipt, result or log does not hold
    │   ├── Divergence       re-execution disagrees with a final block: names the height and the first difference
    │   └── BlobMismatch     the bytes do not have the digest that names them
    ├── JobUnsuccessful      the job ended without a result
    ├── BusError
    │   ├── Unreachable      the NATS server does not answer
    │   ├── InboxFull        the stream refuses more from this sender, or from anyone
    │   ├── FenceRefused     somebody else appended first
    │   ├── MessageTooLarge  above the server's limit
    │   ├── SequenceGap      the log has a hole
    │   ├── WrongNetwork     another genesis, or a stream that is set up differently
    │   └── BlobUnavailable  the chunks are not there (yet)
    └── TimedOut             no answer within the time

An error says what happened, why, and how to mend it. ``data`` carries the facts for programs; nobody parses the
sentences.
"""

from typing import Any, ClassVar

from schemas.refusals import HINTS, Refusal, code_of


class AssayError(Exception):
    """Base. ``exit_code`` is what the command line ends with."""

    code: ClassVar[str] = "ERROR"
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str = "", hint: str = "", **data: Any) -> None:
        super().__init__(what if not why else f"{what}: {why}")
        self.what = what
        self.why = why
        self.hint = hint
        self.data = data


class Refused(AssayError):
    """An event was turned away. ``refusal`` has the code and the data."""

    code = "REFUSED"
    exit_code = 4

    def __init__(self, refusal: Refusal) -> None:
        facts = {name: getattr(refusal, name) for name in refusal.__struct_fields__}
        why = ", ".join(f"{name}={value}" for name, value in facts.items())
        super().__init__(code_of(refusal), why=why, hint=HINTS[code_of(refusal)], **facts)
        self.refusal = refusal


class InvalidAddress(AssayError):
    code = "INVALID_ADDRESS"
    exit_code = 2


class InvalidKey(AssayError):
    code = "INVALID_KEY"
    exit_code = 2


class BadInput(AssayError):
    code = "BAD_INPUT"
    exit_code = 2


class NotFound(AssayError):
    code = "NOT_FOUND"
    exit_code = 3


class NotAllowed(AssayError):
    code = "NOT_ALLOWED"
    exit_code = 4


class DeviceUnavailable(AssayError):
    code = "DEVICE_UNAVAILABLE"
    exit_code = 3


class VerificationFailed(AssayError):
    code = "VERIFICATION_FAILED"
    exit_code = 7


class Divergence(VerificationFailed):
    """``height`` is where the log and the re-execution part, ``difference`` names the first thing that differs."""

    code = "DIVERGENCE"

    def __init__(
        self, height: int, difference: str, *, hint: str = "Do not trust this log; compare with another copy."
    ) -> None:
        super().__init__(
            f"the log is wrong at height {height}", why=difference, hint=hint, height=height, difference=difference
        )
        self.height = height
        self.difference = difference


class BlobMismatch(VerificationFailed):
    code = "BLOB_MISMATCH"


class JobUnsuccessful(AssayError):
    code = "JOB_UNSUCCESSFUL"
    exit_code = 1


class BusError(AssayError):
    code = "BUS_ERROR"
    exit_code = 5


class Unreachable(BusError):
    code = "UNREACHABLE"


class InboxFull(BusError):
    code = "INBOX_FULL"


class FenceRefused(BusError):
    code = "FENCE_REFUSED"


class MessageTooLarge(BusError):
    code = "MESSAGE_TOO_LARGE"


class SequenceGap(BusError):
    code = "SEQUENCE_GAP"


class WrongNetwork(BusError):
    code = "WRONG_NETWORK"


class BlobUnavailable(BusError):
    code = "BLOB_UNAVAILABLE"


class TimedOut(AssayError):
    code = "TIMED_OUT"
    exit_code = 6
