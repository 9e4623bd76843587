"""Everything that is tampered with, by its name."""

from tests.tampering.files import GENESES, KEYSTORES
from tests.tampering.logs import EXPORTS
from tests.tampering.rows import ROWS
from tests.tampering.servers import SERVERS
from tests.tampering.verdicts import Target

TARGETS: dict[str, Target] = {target.name: target for target in (EXPORTS, ROWS, KEYSTORES, GENESES, SERVERS)}
