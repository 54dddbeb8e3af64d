"""Secret with the word by which a pod knows that the operator asks for its report."""

from __future__ import annotations

import base64

from posthof_operator.desired import TOKEN_KEY, Desired
from posthof_operator.resources import Raw


def build(want: Desired) -> list[Raw]:
    if not want.token:
        return []
    token = base64.b64encode(want.token.encode()).decode()
    return [want.child("Secret", want.report_name) | {"type": "Opaque", "data": {TOKEN_KEY: token}}]
