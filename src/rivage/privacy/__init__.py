"""Audits of federated training: what an observer of the messages learns, and whether promised protection holds."""
