"""The look-up of caching policies, for studies and the command line."""

from __future__ import annotations

from rivage.core.registry import Registry

__all__ = ["FAIR_POLICIES", "NETWORK_POLICIES", "POLICIES", "SIMILARITY_POLICIES"]

POLICIES = Registry(
    "rivage.policies",
    "policy",
    {
        "adaptive": "rivage.online.experts:AdaptiveOGB",
        "arc": "rivage.online.adaptive_eviction:ARC",
        "belady": "rivage.online.statics:Belady",
        "fifo": "rivage.online.eviction:FIFO",
        "ftpl": "rivage.online.ftpl:FTPL",
        "lfu": "rivage.online.eviction:LFU",
        "lfu_da": "rivage.online.eviction:LFUDA",
        "lfu_in_cache": "rivage.online.eviction:LFUInCache",
        "lru": "rivage.online.eviction:LRU",
        "mirror_descent": "rivage.online.mirror_descent:MirrorDescent",
        "nfpl": "rivage.online.nfpl:NFPL",
        "ogb": "rivage.online.ogb:OGB",
        "optimistic_ftpl": "rivage.online.optimistic:OptimisticFTPL",
        "optimistic_ftrl": "rivage.online.optimistic:OptimisticFTRL",
        "pcoc": "rivage.online.per_coordinate:PCOC",
        "random": "rivage.online.eviction:RandomEviction",
        "s3fifo": "rivage.online.adaptive_eviction:S3FIFO",
        "static": "rivage.online.statics:BestStatic",
        "window_lfu": "rivage.online.eviction:WindowLFU",
    },
)
"""Kind -> settings of a policy; plug-ins register theirs under the entry-point group of the same name."""

NETWORK_POLICIES = Registry(
    "rivage.network_policies",
    "network policy",
    {
        "grd": "rivage.online.network_baselines:GRD",
        "path_replication": "rivage.online.path_replication:PathReplication",
        "pga": "rivage.online.network_baselines:PGA",
        "tg_online": "rivage.online.tabular_greedy:DistributedTGOnline",
    },
)
"""The same for policies of whole networks of caches."""

SIMILARITY_POLICIES = Registry(
    "rivage.similarity_policies",
    "similarity policy",
    {
        "acai": "rivage.online.acai:ACAI",
        "best_fixed": "rivage.online.similarity_rivals:BestFixed",
        "object_lru": "rivage.online.similarity_rivals:ObjectLRU",
        "sim_lru": "rivage.online.similarity_rivals:SimLRU",
    },
)
"""The same for policies of similarity caches."""

FAIR_POLICIES = Registry(
    "rivage.fair_policies",
    "fair-sharing policy",
    {
        "even": "rivage.online.fair_contenders:Even",
        "hf": "rivage.online.fair_contenders:HorizonFair",
        "ohf": "rivage.online.fair_contenders:OnlineHorizon",
        "osf": "rivage.online.fair_contenders:OnlineSlot",
        "sf": "rivage.online.fair_contenders:SlotFair",
    },
)
"""The same for policies that share something among agents; `rivage.online.fair_contenders` says what they are asked."""
