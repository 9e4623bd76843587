"""What a sandbox and its process say to each other: JSON, one record a line, over the process's stdin and stdout.

A job says what it has to say (`Word`) to the process that forked it, which passes each line on, wrapped (`Said`): so a
job cannot speak for that process, nor for a job that comes after it.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from schemas.events import Device
from schemas.services import Work
from schemas.values import Digest

Wall: TypeAlias = Literal["namespaces", "filter"]

RESULT_NAME: Final = "result"
ERRORS_NAME: Final = "stderr.txt"
ERRORS_BYTES: Final = 65_536
LINE_BYTES: Final = 16_384

Steps: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]


class FailureCode(StrEnum):
    """Why a job ended without a result."""

    BAD_INPUT = "BAD_INPUT"
    CRASHED = "CRASHED"
    DEVICE_FAULT = "DEVICE_FAULT"
    MEMORY = "MEMORY"
    NO_DEVICE = "NO_DEVICE"
    NO_JAIL = "NO_JAIL"
    OUTPUT_TOO_LARGE = "OUTPUT_TOO_LARGE"
    TIMEOUT = "TIMEOUT"


class Job(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One job: what to do, where the inputs lie (absolute paths), and what it may use.

    ``backend`` computes it, on the GPU with the UUID ``device`` where that is given.
    """

    work: Work
    blobs: dict[Digest, str]
    directory: str
    threads: int
    memory_bytes: int
    output_bytes: int
    cpu_seconds: int
    backend: str = "cpu"
    device: str = ""


class Devices(Struct, frozen=True, forbid_unknown_fields=True, tag="devices", tag_field="message"):
    """What jobs will run on."""

    devices: tuple[Device, ...]


class Ready(Struct, frozen=True, forbid_unknown_fields=True, tag="ready", tag_field="message"):
    """The process has loaded all that a job needs. ``walls``: the layers of `actors.jail` that the host allows."""

    walls: tuple[Wall, ...]


class Progressed(Struct, frozen=True, forbid_unknown_fields=True, tag="progressed", tag_field="message"):
    """``done`` of ``total`` steps of the job."""

    done: Steps
    total: Steps


class Completed(Struct, frozen=True, forbid_unknown_fields=True, tag="completed", tag_field="message"):
    """The job has written its result."""

    root: Digest
    digest: Digest
    size: int


class Failed(Struct, frozen=True, forbid_unknown_fields=True, tag="failed", tag_field="message"):
    """The job has noticed that it cannot be done."""

    code: FailureCode
    detail: str


class Said(Struct, frozen=True, forbid_unknown_fields=True, tag="said", tag_field="message"):
    """A line that a job has said, whatever it is: at most `LINE_BYTES`."""

    line: bytes


class Exited(Struct, frozen=True, forbid_unknown_fields=True, tag="exited", tag_field="message"):
    """The job's own process is gone; ``exit_code`` is minus the signal's number where one killed it."""

    exit_code: int


Word: TypeAlias = Progressed | Completed | Failed
Reply: TypeAlias = Devices | Ready | Said | Word | Exited

decode_job: Final[Callable[[bytes], Job]] = msgspec.json.Decoder(Job).decode
decode_word: Final[Callable[[bytes], Word]] = msgspec.json.Decoder[Word](Word).decode
decode_reply: Final[Callable[[bytes], Reply]] = msgspec.json.Decoder[Reply](Reply).decode


def encode_line(record: Job | Reply) -> bytes:
    """The record as one line."""
    return msgspec.json.encode(record) + b"\n"
