"""Send a large shipment and read its results: ``python -m tests.lane.large_shipment PROTOCOL URL LINES``.

Prints the number of answered lines, the bytes sent, and the memory of this process at most, in bytes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dspyq.guards.provider_access import ProviderAccess
from dspyq.lane.providers.choice import provider_for
from dspyq.lane.providers.protocol import LineOutcome, ShipmentLine
from tests.lane.body_forms import DIALECTS, HEADERS, body_of

_PADDING = "lorem ipsum dolor sit amet " * 40
_POLL_SECONDS = 0.2
_KIBI = 1024


def main() -> None:
    """Do it, and print the figures as JSON."""
    protocol, base_url, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    access = ProviderAccess(DIALECTS[protocol], base_url, HEADERS[protocol], timeout_seconds=300, model="m")
    provider = provider_for(protocol, access)
    sent = 0

    def lines() -> Iterator[ShipmentLine]:
        nonlocal sent
        for number in range(count):
            body = body_of(protocol, f"{_PADDING}{number}")
            sent += len(body)
            yield f"line-{number}", body

    if provider.has_files:
        batch = provider.create("dspyq-large", file_id=provider.upload("dspyq-large", lines()))
    else:
        batch = provider.create("dspyq-large", lines=lines())
    while not batch.state.is_final:
        time.sleep(_POLL_SECONDS)
        batch = provider.poll(batch.id)
    answered = sum(line.outcome is LineOutcome.ANSWERED for line in provider.read_lines(batch))
    sys.stdout.write(json.dumps({"answered": answered, "sent_bytes": sent, "peak_bytes": _peak_bytes()}) + "\n")


def _peak_bytes() -> int:
    """Return this program's own peak; ``getrusage`` counts its parent's pages before the exec too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * _KIBI


if __name__ == "__main__":
    main()
