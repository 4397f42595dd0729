"""The publications behind the policies, as records and citations hold them.

A policy names its publication by a key, ``reference = "carra24"``; a plug-in may give the mapping itself, or a
dataclass with these keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

__all__ = ["REFERENCES", "reference_of"]


def _entry(
    authors: str, title: str, venue: str, year: int, *, arxiv: str = "", part: str = "", entry: str = "inproceedings"
) -> Mapping[str, Any]:
    """Fields as in `rivage.federated.algorithm.Reference`, without the key."""
    return {
        "authors": authors,
        "title": title,
        "venue": venue,
        "year": year,
        "arxiv": arxiv,
        "part": part,
        "entry": entry,
    }


REFERENCES: Mapping[str, Mapping[str, Any]] = {
    "arlitt00": _entry(
        "Martin Arlitt and Ludmila Cherkasova and John Dilley and Rich Friedrich and Tai Jin",
        "Evaluating Content Management Techniques for Web Proxy Caches",
        "ACM SIGMETRICS Performance Evaluation Review 27(4)",
        2000,
        entry="article",
    ),
    "belady66": _entry(
        "László A. Belady",
        "A Study of Replacement Algorithms for a Virtual-Storage Computer",
        "IBM Systems Journal 5(2)",
        1966,
        entry="article",
    ),
    "benmazziane23": _entry(
        "Younes Ben Mazziane and Francescomaria Faticanti and Giovanni Neglia and Sara Alouf",
        "No-Regret Caching with Noisy Request Estimates",
        "HAL, hal-04318435",
        2023,
        entry="misc",
    ),
    "bhattacharjee20": _entry(
        "Rajarshi Bhattacharjee and Subhankar Banerjee and Abhishek Sinha",
        "Fundamental Limits on the Regret of Online Network-Caching",
        "ACM SIGMETRICS",
        2020,
    ),
    "breslau99": _entry(
        "Lee Breslau and Pei Cao and Li Fan and Graham Phillips and Scott Shenker",
        "Web Caching and Zipf-like Distributions: Evidence and Implications",
        "IEEE INFOCOM",
        1999,
    ),
    "carra24": _entry(
        "Damiano Carra and Giovanni Neglia",
        "An Online Gradient-Based Caching Policy with Logarithmic Complexity and Regret Guarantees",
        "arXiv",
        2024,
        arxiv="2405.01263",
        entry="misc",
    ),
    "derooij14": _entry(
        "Steven de Rooij and Tim van Erven and Peter D. Grünwald and Wouter M. Koolen",
        "Follow the Leader If You Can, Hedge If You Must",
        "Journal of Machine Learning Research 15",
        2014,
        arxiv="1301.0534",
        part="AdaHedge",
        entry="article",
    ),
    "faticanti24": _entry(
        "Francescomaria Faticanti and Giovanni Neglia",
        "Optimistic Online Caching for Batched Requests",
        "Computer Networks",
        2024,
        arxiv="2310.01309",
        entry="article",
    ),
    "ioannidis16": _entry(
        "Stratis Ioannidis and Edmund Yeh",
        "Adaptive Caching Networks with Optimality Guarantees",
        "ACM SIGMETRICS",
        2016,
        arxiv="1604.03490",
    ),
    "karakostas02": _entry(
        "George Karakostas and Dimitrios N. Serpanos",
        "Exploitation of Different Types of Locality for Web Caches",
        "IEEE Symposium on Computers and Communications",
        2002,
    ),
    "li22": _entry(
        "Yuanyuan Li and Tareq Si Salem and Giovanni Neglia and Stratis Ioannidis",
        "Online Caching Networks with Adversarial Guarantees",
        "ACM SIGMETRICS",
        2022,
    ),
    "mattson70": _entry(
        "Richard L. Mattson and Jan Gecsei and Donald R. Slutz and Irving L. Traiger",
        "Evaluation Techniques for Storage Hierarchies",
        "IBM Systems Journal 9(2)",
        1970,
        entry="article",
    ),
    "megiddo03": _entry(
        "Nimrod Megiddo and Dharmendra S. Modha",
        "ARC: A Self-Tuning, Low Overhead Replacement Cache",
        "USENIX Conference on File and Storage Technologies",
        2003,
        part="Figure 4",
    ),
    "mhaisen23": _entry(
        "Naram Mhaisen and Abhishek Sinha and Georgios Paschos and George Iosifidis",
        "Optimistic No-Regret Algorithms for Discrete Caching",
        "ACM SIGMETRICS",
        2023,
        arxiv="2208.06414",
    ),
    "nemhauser78": _entry(
        "George L. Nemhauser and Laurence A. Wolsey and Marshall L. Fisher",
        "An Analysis of Approximations for Maximizing Submodular Set Functions I",
        "Mathematical Programming 14",
        1978,
        entry="article",
    ),
    "pandey09": _entry(
        "Sandeep Pandey and Andrei Broder and Flavio Chierichetti and Vanja Josifovski and Ravi Kumar and Sergei "
        "Vassilvitskii",
        "Nearest-Neighbor Caching for Content-Match Applications",
        "International Conference on World Wide Web",
        2009,
    ),
    "paschos19": _entry(
        "Georgios S. Paschos and Apostolos Destounis and Luigi Vigneri and George Iosifidis",
        "Learning to Cache With No Regrets",
        "IEEE INFOCOM",
        2019,
    ),
    "sisalem21": _entry(
        "Tareq Si Salem and Giovanni Neglia and Stratis Ioannidis",
        "No-Regret Caching via Online Mirror Descent",
        "IEEE International Conference on Communications",
        2021,
        arxiv="2101.12588",
    ),
    "sisalem24": _entry(
        "Tareq Si Salem and Gabriele Castellano and Giovanni Neglia and Fabio Pianese and Andrea Araldo",
        "Towards Inference Delivery Networks: Distributing Machine Learning With Optimality Guarantees",
        "IEEE/ACM Transactions on Networking 32(1)",
        2024,
        arxiv="2105.02510",
        entry="article",
    ),
    "sisalem22": _entry(
        "Tareq Si Salem and Giovanni Neglia and Damiano Carra",
        "Ascent Similarity Caching With Approximate Indexes",
        "IEEE/ACM Transactions on Networking",
        2022,
        arxiv="2107.00957",
        entry="article",
    ),
    "sisalem23": _entry(
        "Tareq Si Salem and George Iosifidis and Giovanni Neglia",
        "Enabling Long-term Fairness in Dynamic Resource Allocation",
        "ACM SIGMETRICS",
        2023,
        arxiv="2208.05898",
    ),
    "yang23": _entry(
        "Juncheng Yang and Yazhuo Zhang and Ziyue Qiu and Yao Yue and K. V. Rashmi",
        "FIFO Queues Are All You Need for Cache Eviction",
        "ACM Symposium on Operating Systems Principles",
        2023,
        part="Algorithm 1",
    ),
}
"""Key -> publication."""


def reference_of(policy: Any) -> dict[str, Any] | None:
    """What a record says of the publication behind a policy; None where it names none that is known."""
    given = getattr(policy, "reference", None)
    if is_dataclass(given) and not isinstance(given, type):
        return asdict(given)
    if isinstance(given, Mapping):
        return dict(given)
    return {"key": given, **REFERENCES[given]} if isinstance(given, str) and given in REFERENCES else None
