"""The command `posthof-operator`: `run` reconciles, `webhook` answers the API server's questions."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import logging
import os
import sys
from collections.abc import Sequence

import msgspec

from posthof_operator import access, settings


class Lines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 after a clean stop, 1 when a Lease was lost or a part failed, 2 for wrong settings."""
    parser = argparse.ArgumentParser(prog="posthof-operator", description=__doc__)
    parser.add_argument("command", choices=("run", "webhook"))
    parser.add_argument("--log-level", default=os.environ.get("POSTHOF_LOG_LEVEL", "info"), help="debug ... error")
    options = parser.parse_args(argv)
    _log(options.log_level)
    try:
        found = access.find()
        told = settings.from_environment(namespace=found.namespace)
    except (access.NoAccess, settings.WrongSetting) as error:
        print(f"posthof-operator: {error}", file=sys.stderr)
        return 2
    if options.command == "webhook":
        from posthof_operator.webhook import server

        return asyncio.run(server.run(told, found))
    from posthof_operator import app

    return asyncio.run(app.run(told, found))


def _log(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("kopf").setLevel(logging.WARNING)  # it tells of every event
    logging.getLogger("aiohttp").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
