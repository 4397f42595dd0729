"""Latency, bandwidth and the time of a step, measured on the real machines of the silos that are to train together.

`rivage.graphs` describes networks and opens no sockets; needed here are processes on other machines and files of
results, which are the business of studies. The result is two matrices that `rivage.graphs.load_connectivity` reads.

`hosts` is the file of machines, `probe` what runs there, `agents` this side of it, `measurements` what is asked of it,
`rates` what its clock saw, `results` the files that are kept, `pairs` the order of it all.
"""
