"""Decisions under an adversary, with a bound on what they cost: caching, caching networks, fair allocation."""
