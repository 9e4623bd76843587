"""Every parser that meets bytes of others, by its name."""

from tests.fuzz import attestation_parsers, file_parsers, ledger_parsers, message_parsers, result_parsers
from tests.fuzz.engine import Parser

PARSERS: dict[str, Parser] = {
    parser.name: parser
    for parser in (
        *ledger_parsers.PARSERS,
        *file_parsers.PARSERS,
        *message_parsers.PARSERS,
        *result_parsers.PARSERS,
        *attestation_parsers.PARSERS,
    )
}
