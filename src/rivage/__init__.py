"""rivage: machine learning at the network edge, with a certificate on every answer."""

__version__ = "0.1.0"
