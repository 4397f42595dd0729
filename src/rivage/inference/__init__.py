"""Inference delivery networks: which model on which node, how requests are served, and how good that is."""
