"""The ``rivage`` command: verbs, loaded on first use, and one place where errors become text and exit codes.

Exit codes: 0 done; 1 the work failed; 2 wrong usage or settings; 3 a certificate or claim does not hold where that
was asked for; 130 interrupted after a clean checkpoint.

Results go to standard output, progress, logs and errors to standard error. With ``--json`` standard output holds one
JSON object and nothing else; when the command fails it stays empty and the error stands on standard error, as ever.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from typing import NamedTuple

from cyclopts import App, CycloptsError, Parameter

from rivage import __version__
from rivage.core.errors import RivageError

__all__ = ["app", "main"]

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130


class _Verb(NamedTuple):
    help: str
    example: str
    module: str = "commands"


_VERBS = {
    "run": _Verb(
        "Train, compare and report: the whole chain. Without a file, a built-in study in under 3 minutes.",
        "rivage run hospitals.toml --set run.rounds=100",
    ),
    "train": _Verb(
        "Train the methods of a study; run the same command again to resume.",
        "rivage train hospitals.toml --set methods.fedavg.learning_rate=0.05 --out results",
    ),
    "advise": _Verb(
        "Say which method is best for your sites, and how sure that is: a small tuned comparison on their own data.",
        "rivage advise sites/ --target disease",
        "advise",
    ),
    "play": _Verb(
        "Let online policies meet requests: what they gain, regret against its bound, how much cache to buy.",
        "rivage play --trace web.csv --capacity 1% --capacity 5% --policies ogb,adaptive,lru,s3fifo,static",
        "games",
    ),
    "place": _Verb(
        "Decide which model goes on which node: cost, bound, gap, and whose memory is worth buying.",
        "rivage place city.toml --set delivery.alpha_ms_per_point=2",
        "games",
    ),
    "design": _Verb(
        "Design the overlay over which silos train fastest: cycle times, and how far from the best there is.",
        "rivage design gaia.gml --model-bits 44961717 --compute-ms 25.4 --access-gbps 10 --core-gbps 1",
        "design",
    ),
    "audit": _Verb(
        "Attack the messages of a training, and say what they tell of the records behind them.",
        "rivage audit runs/hospitals-3f9c2a17 --attacks all --json",
        "audit",
    ),
    "report": _Verb(
        "Draw one self-contained HTML page from one or several runs.",
        "rivage report runs/hospitals-3f9c2a17 runs/hospitals-77b01d4e --out comparison.html",
    ),
    "verify": _Verb(
        "Compute every certificate of a run again from its files, without training.",
        "rivage verify runs/hospitals-3f9c2a17 --json",
        "verify",
    ),
    "reproduce": _Verb(
        "Run published claims again and say which hold. Without names: all quick ones.",
        "rivage reproduce --slow",
    ),
    "cite": _Verb(
        "Print BibTeX of the methods that a run used.",
        "rivage cite runs/hospitals-3f9c2a17 > methods.bib",
    ),
    "doctor": _Verb(
        "Show what this installation can do, and the command that adds the rest.",
        "rivage doctor",
    ),
}
_KEEPS = {
    "run": "trained",
    "train": "trained",
    "advise": "trained",
    "play": "played to the end",
    "place": "planned",
    "design": "designed",
    "audit": "found",
}
"""Verbs that resume, and what they keep."""


def _build() -> App:
    app = App(
        name="rivage",
        help="Machine learning at the network edge, with a certificate on every answer.",
        version=__version__,
        default_parameter=Parameter(negative=(), show_default=False),
        help_epilogue="Example: rivage run",
        help_format="plaintext",
        suppress_keyboard_interrupt=False,  # `main` says how to resume
    )
    for name, verb in _VERBS.items():
        app.command(
            f"rivage.cli.{verb.module}:{name}",
            name=name,
            help=verb.help,
            help_epilogue=f"Example: {verb.example}",
        )
    return app


app = _build()


def main(tokens: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        tokens: the words after ``rivage``; None takes those of this process.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if tokens is None else tokens)
    try:
        code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except CycloptsError as error:
        return _fail(f"{error} See: rivage{_verb(words)} --help", WRONG_USAGE, words)
    except RivageError as error:
        return _fail(str(error), error.exit_code, words)
    except KeyboardInterrupt:
        return _fail(_interrupted(words), INTERRUPTED, words)
    except BrokenPipeError:  # the reader of our output has gone, as in `rivage ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        return _fail(f"{error.filename or 'system'}: {error.strerror or error}", FAILED, words)
    except Exception as error:
        fault = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return _fail(
            f"unexpected {fault}. This is a fault of rivage or of a plug-in; --verbose shows where.",
            FAILED,
            words,
        )


def _verb(words: Sequence[str]) -> str:
    return f" {words[0]}" if words and words[0] in _VERBS else ""


def _interrupted(words: Sequence[str]) -> str:
    if not words or words[0] not in _KEEPS:
        return "interrupted"
    again = shlex.join(["rivage", *(word for word in words if word != "--fresh")])
    return f"interrupted; what was {_KEEPS[words[0]]} is kept. Resume with: {again}"


def _fail(text: str, code: int, words: Sequence[str]) -> int:
    if "--verbose" in words and code != INTERRUPTED:
        import traceback

        traceback.print_exc()
    print(f"error: {text}", file=sys.stderr)
    return code
