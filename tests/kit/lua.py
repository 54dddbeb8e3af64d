"""Argo CD's health scripts, run by Debian's Lua.

    health(script_text, object) -> {"status": "Healthy", "message": "..."}

A script is run with the object as the global `obj`, as Argo CD runs it. Only what Lua 5.1 (Argo CD's) and Lua 5.3
(Debian's) share may be used in it.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

LUA_MISSING = "lua5.3 is missing: apt-get install lua5.3"


def find_lua() -> str | None:
    """The interpreter, or None."""
    return shutil.which("lua5.3")


def health(script: str, raw: Any) -> dict[str, str]:
    """What the script returns. RuntimeError: it fails, with Lua's words."""
    program = (
        f"obj = {literal(raw)}\n"
        f"local script = assert(load({literal(script)}))\n"
        "local found = script()\n"
        'io.write(found.status, "\\n", found.message or "")\n'
    )
    command = [find_lua() or "lua5.3", "-"]
    done = subprocess.run(command, input=program, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    status, _, message = done.stdout.partition("\n")
    return {"status": status, "message": message}


def literal(value: Any) -> str:
    """A JSON value as Lua writes it. null is nil, as Argo CD has it."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return "{" + ", ".join(map(literal, value)) + "}"
    return "{" + ", ".join(f"[{_text(key)}] = {literal(inner)}" for key, inner in value.items()) + "}"


def _text(value: str) -> str:
    """Bytes that are not plain letters by number, which every version reads."""
    return (
        '"'
        + "".join(
            chr(byte) if 32 <= byte < 127 and byte not in (34, 92) else f"\\{byte:03}" for byte in value.encode()
        )
        + '"'
    )
