"""A network of namespaces with links of given latency and rate, for tests; run as a program, as root, on Linux.

``tc netem`` would do the same in the kernel, but many kernels come without it. Here each namespace gets a TUN device,
and this program carries the packets: it delays and spaces them as the link from one to the other would, and drops those
that would have to wait too long. Asymmetric links are as easy as others.

Standard input holds one line of JSON, with names of namespaces (made and removed here), their addresses, ``latency_ms``
one way and ``bps`` from the row to the column, and ``queue_ms``. It prints "ready", and ends with its standard input.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 0x0001, 0x1000, 0x40000000
MTU = 1500


def enter(namespace: int) -> None:
    """Move this process to a network namespace."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def device(name: str, address: str) -> int:
    """A namespace with one device, as an open file of packets."""
    ip("netns", "add", name)
    with open("/proc/self/ns/net") as here, open(f"/run/netns/{name}") as there:
        enter(there.fileno())
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", b"tun0", IFF_TUN | IFF_NO_PI))
        enter(here.fileno())
    ip("-n", name, "link", "set", "dev", "lo", "up")
    ip("-n", name, "link", "set", "dev", "tun0", "up", "mtu", str(MTU))
    ip("-n", name, "addr", "add", f"{address}/24", "dev", "tun0")
    return tun


def carry(
    tuns: list[int], addresses: list[str], latency_ms: list[list[float]], bps: list[list[float]], queue_ms: float
) -> None:
    """Carry packets until standard input ends."""
    places = {socket.inet_aton(address): place for place, address in enumerate(addresses)}
    free = [[0.0] * len(tuns) for _ in tuns]  # when the link from one to the other has sent what waits
    under_way: list[tuple[float, int, int, bytes]] = []
    count = 0
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        ready, _, _ = select.select([0, *tuns], [], [], wait)
        if 0 in ready and not os.read(0, 1):
            return
        for one, tun in enumerate(tuns):
            while tun in ready:
                try:
                    packet = os.read(tun, 65536)
                except BlockingIOError:
                    break
                other = places.get(packet[16:20], one)
                now = time.monotonic()
                if other == one or free[one][other] - now > queue_ms / 1000:
                    continue
                free[one][other] = max(now, free[one][other]) + 8 * len(packet) / bps[one][other]
                count += 1
                heapq.heappush(under_way, (free[one][other] + latency_ms[one][other] / 1000, count, other, packet))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, other, packet = heapq.heappop(under_way)
            os.write(tuns[other], packet)


def main() -> None:
    """Read what is wanted, make it, carry packets, and clean up."""
    wanted = json.loads(sys.stdin.readline())
    names = wanted.pop("names")
    try:
        tuns = [device(name, address) for name, address in zip(names, wanted["addresses"], strict=True)]
        print("ready", flush=True)
        carry(tuns, **wanted)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
