"""A small HTTP server for the actors: a path and its query in, JSON out. The API server's pod proxy asks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qs, urlsplit

Query = dict[str, list[str]]
Route = Callable[[Query], Awaitable[object]]


def one(query: Query, name: str, default: str = "") -> str:
    """A parameter's first value."""
    found: str = query.get(name, [default])[0]
    return found


async def serve(routes: Mapping[str, Route], port: int = 8080) -> None:
    """Answer GET for as long as the process lives. A route that fails answers 500 with the reason."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = (await reader.readline()).decode("latin-1").split()
            while (await reader.readline()).strip():
                pass
            split = urlsplit(line[1])
            status, body = 404, b"{}"
            if split.path.lstrip("/") in routes:
                try:
                    answer = await routes[split.path.lstrip("/")](parse_qs(split.query))
                    status, body = 200, json.dumps(answer).encode()
                except Exception as fault:
                    status, body = 500, json.dumps({"message": f"{type(fault).__name__}: {fault}"}).encode()
            writer.write(
                f"HTTP/1.1 {status} {'OK' if status == 200 else 'No'}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (OSError, IndexError):
            pass  # whoever asked has gone
        finally:
            writer.close()

    server = await asyncio.start_server(one, None, port)
    async with server:
        await server.serve_forever()
