"""A node loses the network, and with it the shared volume and the API server: others deliver what it promised."""

from kit.stage import Stage
from scenarios.a_node_is_frozen_and_comes_back import away

NODES = True


def story(stage: Stage) -> None:
    away(stage, "cut", "mend")
