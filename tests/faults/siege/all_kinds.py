"""All kinds of fault, in the order of the report."""

from __future__ import annotations

from typing import Final

from tests.faults.siege.clusters import CLUSTERS
from tests.faults.siege.kinds import PROCESSES, Kind
from tests.faults.siege.networks import NETWORKS
from tests.faults.siege.stores import STORES
from tests.faults.siege.strangers import STRANGERS
from tests.faults.siege.versions import VERSIONS

KINDS: Final[tuple[Kind, ...]] = (
    *PROCESSES,
    *NETWORKS,
    *STRANGERS,
    *STORES,
    *VERSIONS,
    *CLUSTERS,
)
