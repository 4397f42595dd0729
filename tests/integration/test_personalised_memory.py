"""A study of a thousand clients with personal models stays under 2 GiB resident."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT_BYTES = 2 << 30
METHODS = ("fedem", "knnper", "ditto", "fedrep")
STUDY = """
name = "thousand"
[data]
kind = "leaf"
clients = 1000
max_records = 400
[task]
model = "mlp"
options = {{ hidden = [64] }}
[work]
batch_size = 16
[[methods]]
kind = "{method}"
learning_rate = 0.05
[run]
rounds = 3
cohort = 100
seeds = [0]
log = "none"
[evaluation]
every = 3
unseen_clients = 0.05
"""
PROBE = """
import resource, sys
from rivage.cli.app import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, file=sys.stderr)
sys.exit(code)
"""


def peak_bytes(method: str, folder: Path) -> int:
    """The most memory that a process which plays the study has held."""
    study = folder / f"{method}.toml"
    study.write_text(STUDY.format(method=method))
    words = ["run", str(study), "--json", "--quiet", "--out", str(folder / method)]
    done = subprocess.run([sys.executable, "-c", PROBE, *words], capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["methods"]
    return int(done.stderr.splitlines()[-1])


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", METHODS)
def test_a_thousand_clients_fit_into_two_gibibytes(method: str, tmp_path: Path) -> None:
    peak = peak_bytes(method, tmp_path)
    print(f"{method}: peak {peak / 2**20:.0f} MiB")
    assert peak < LIMIT_BYTES
