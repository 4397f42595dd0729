"""Published statements, and functions that test them: what `rivage reproduce` runs.

A claim says where it was published, what was said and how far we may be off; running it gives a measured value and a
verdict. Claims that need data files which are not here are *not tested*, with the reason; none is ever skipped in
silence. Quick claims take seconds, slow ones minutes.
"""

from __future__ import annotations

from collections.abc import Mapping

from rivage.studies.claims import (
    attribute_inference,
    attribute_privacy,
    audit_nulls,
    cache_networks,
    caching,
    caching_variants,
    decentralized,
    delivery,
    differential_privacy,
    dp_ftrl,
    eavesdropping,
    epsilon_audit,
    fair_and_clustered,
    fairness,
    federated,
    membership,
    mixed_heads,
    mixtures,
    mixtures_at_size,
    mixtures_decentralized,
    neighbours,
    neighbours_under_drift,
    overlays,
    personalised,
    personalised_grid,
    reference_attacks,
    secure_aggregation,
    shadow_clients,
    similarity,
    stragglers,
    streams,
    topology_matters,
)
from rivage.studies.claims.claim import Claim, Outcome

__all__ = ["CLAIMS", "Claim", "Outcome"]

_PARTS = (
    federated,
    audit_nulls,
    decentralized,
    attribute_inference,
    attribute_privacy,
    cache_networks,
    caching,
    caching_variants,
    delivery,
    differential_privacy,
    dp_ftrl,
    eavesdropping,
    epsilon_audit,
    fair_and_clustered,
    fairness,
    membership,
    mixed_heads,
    mixtures,
    mixtures_at_size,
    mixtures_decentralized,
    neighbours,
    neighbours_under_drift,
    overlays,
    personalised,
    personalised_grid,
    reference_attacks,
    secure_aggregation,
    shadow_clients,
    similarity,
    stragglers,
    streams,
    topology_matters,
)

CLAIMS: Mapping[str, Claim] = {claim.name: claim for part in _PARTS for claim in part.CLAIMS}
"""Name -> claim."""
