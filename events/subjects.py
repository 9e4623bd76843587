"""Names of subjects and streams. ``<c>`` is the chain, ``<a>`` an address; see the table in docs/protocol.md."""

STREAMS = ("INBOX", "CHAIN", "FEED", "BLOBS")


def stream(chain: str, kind: str) -> str:
    """The JetStream name of one of ``STREAMS``. A stream name may not hold dots, a chain name never does."""
    return f"ASSAY_{chain}_{kind}"


def inbox(chain: str, address: str) -> str:
    return f"assay.{chain}.inbox.{address}"


def block(chain: str) -> str:
    return f"assay.{chain}.chain.block"


def vote(chain: str) -> str:
    return f"assay.{chain}.chain.vote"


def feed(chain: str, address: str) -> str:
    return f"assay.{chain}.feed.{address}"


def live(chain: str, address: str, topic: str) -> str:
    return f"assay.{chain}.live.{address}.{topic}"


def query(chain: str, what: str) -> str:
    return f"assay.{chain}.query.{what}"


def wallet(chain: str, address: str) -> str:
    return f"assay.{chain}.wallet.{address}"


def blob(chain: str, owner: str, digest: str) -> str:
    return f"assay.{chain}.blob.{owner}.{digest}"


def last_token(subject: str) -> str:
    """The part after the last dot: of an inbox subject, the address."""
    return subject.rpartition(".")[2]
