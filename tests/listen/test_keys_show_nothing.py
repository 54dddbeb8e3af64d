"""What holds a private key shows nothing of it, wherever it may be printed."""

from __future__ import annotations

import pytest

from posthof_pod.deliver.tls import ClientPair
from posthof_pod.listen.tls import Pair


@pytest.mark.parametrize("kind", [Pair, ClientPair])
def test_a_pair_shows_its_chain_alone(kind: type[Pair] | type[ClientPair]) -> None:
    shown = repr((kind(b"the chain", b"the key"),))
    assert "the chain" in shown
    assert "the key" not in shown
