"""Every block of code in the README and the documentation does what the page says.

The blocks of a page run from top to bottom, in one Python namespace and one empty folder:

- ```` ```python ````           runs; with ``>>>`` prompts it is a doctest
- ```` ```text output ````      is what the Python block before it printed (``...`` stands for anything)
- ```` ```console ````          runs its ``$ rivage ...`` lines, with ``*`` as in a shell; what follows a command is all
                              that it printed, progress included
- ```` ```toml file=x.toml ```` (any language) writes that file for the blocks below
- ```` ```toml ````, ``json``   without a file, at least parse
- ``norun`` after the language keeps a fragment, or a command that installs something, from running
"""

from __future__ import annotations

import doctest
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import ModuleType

import pytest

import rivage

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if not {"_build", "api"} & set(path.parts)),
]
CHECKER = doctest.OutputChecker()
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """One fenced block: where it starts, its language, the words after the language, its text."""

    line: int
    language: str
    words: tuple[str, ...]
    text: str

    @property
    def file(self) -> str | None:
        """The file this block writes."""
        return next((word.removeprefix("file=") for word in self.words if word.startswith("file=")), None)


def blocks_of(markdown: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order; a fence closes with one at least as long."""
    fence = re.compile(
        r"^(?P<ticks>`{3,})(?P<info>[^`\n]*)\n(?P<text>.*?)^(?P=ticks)`*[ \t]*$", re.MULTILINE | re.DOTALL
    )
    for match in fence.finditer(markdown):
        language, *words = match["info"].split() or [""]
        yield Block(markdown.count("\n", 0, match.start()) + 1, language, tuple(words), match["text"])


class Page:
    """Runs the blocks of one page in ``folder``."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.printed = name, folder, ""
        self.module = ModuleType("documentation_page")  # dataclasses look their module up by name

    def run(self, block: Block) -> None:
        if "norun" in block.words:
            return
        if block.file:
            path = self.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        runner = getattr(self, f"_{block.language}", None)
        if runner is not None:
            runner(block)

    def _python(self, block: Block) -> None:
        if block.text.lstrip().startswith(">>>"):
            self._doctest(block)
            return
        code = compile("\n" * block.line + block.text, self.name, "exec", dont_inherit=True)
        out = StringIO()
        with redirect_stdout(out):
            exec(code, self.module.__dict__)
        self.printed = out.getvalue()

    def _doctest(self, block: Block) -> None:
        test = doctest.DocTestParser().get_doctest(block.text, self.module.__dict__, self.name, self.name, block.line)
        test.globs = self.module.__dict__  # the test made a copy, later blocks need the names
        report = StringIO()
        doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.write, clear_globs=False)
        assert not report.getvalue(), report.getvalue()

    def _text(self, block: Block) -> None:
        if "output" in block.words:
            self._compare(block.text, self.printed, block)

    def _console(self, block: Block) -> None:
        for command, expected in commands_of(block.text):
            program, *words = shlex.split(command)
            assert program == "rivage", f'{self.name}:{block.line}: mark "{command}" norun, or make it rivage'
            done = subprocess.run(
                [Path(sys.executable).parent / program, *self._expanded(words)],
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=240,
            )
            assert done.returncode == 0, f"{self.name}:{block.line}: {command}\n{done.stdout}"
            if expected:
                self._compare(expected, done.stdout, block)

    def _expanded(self, words: list[str]) -> Iterator[str]:
        for word in words:
            found = sorted(str(path.relative_to(self.folder)) for path in self.folder.glob(word)) if "*" in word else ()
            yield from found or [word]

    def _toml(self, block: Block) -> None:
        tomllib.loads(block.text)

    def _json(self, block: Block) -> None:
        json.loads(block.text)

    def _compare(self, expected: str, got: str, block: Block) -> None:
        place = f"{self.name}:{block.line}"
        expected, got = (text.replace("─", "") for text in (expected, got))  # rules are as wide as the numbers
        assert CHECKER.check_output(expected, got, FLAGS), f"{place}: expected\n{expected}\ngot\n{got}"


def commands_of(text: str) -> Iterator[tuple[str, str]]:
    """Each ``$`` command of a console block with the output given below it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.replace("\\\n", " ").partition("\n")
        yield command, expected


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(path: Path, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = Page(str(path.relative_to(ROOT)), tmp_path)
    monkeypatch.setitem(sys.modules, page.module.__name__, page.module)
    for block in blocks_of(path.read_text(encoding="utf-8")):
        page.run(block)


def run_text(markdown: str, folder: Path) -> Page:
    page = Page("page.md", folder)
    for block in blocks_of(markdown):
        page.run(block)
    return page


def test_blocks_share_one_namespace(tmp_path: Path) -> None:
    page = run_text(
        "```python\na = 2\n```\nprose\n```python\n>>> b = a + 1\n```\n```python\nc = b + 1\n```\n", tmp_path
    )
    assert page.module.__dict__["c"] == 4


def test_a_block_reports_its_own_line(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run_text("# Title\n\n```python\nfine = 1\n1 / 0\n```\n", tmp_path)
    assert caught.traceback[-1].lineno + 1 == 5


def test_wrong_output_is_found(tmp_path: Path) -> None:
    right = "```python\nprint(1 + 1)\n```\n```text output\n2\n```\n"
    run_text(right, tmp_path)
    with pytest.raises(AssertionError, match=r"page\.md:4"):
        run_text(right.replace("\n2\n", "\n3\n"), tmp_path)
    with pytest.raises(AssertionError, match="Expected"):
        run_text("```python\n>>> 1 + 1\n3\n```\n", tmp_path)


def test_files_are_written_and_parsed(tmp_path: Path) -> None:
    run_text("```toml file=a/b.toml\nx = 1\n```\n", tmp_path)
    assert (tmp_path / "a" / "b.toml").read_text(encoding="utf-8") == "x = 1\n"
    with pytest.raises(tomllib.TOMLDecodeError):
        run_text("```toml\nx =\n```\n", tmp_path)


def test_norun_is_not_run(tmp_path: Path) -> None:
    run_text("```python norun\n1 / 0\n```\n```console norun\n$ rm -r everything\n```\n", tmp_path)


def test_only_rivage_runs(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="norun"):
        run_text("```console\n$ pip install something\n```\n", tmp_path)


def test_output_of_a_command_is_compared(tmp_path: Path) -> None:
    shown = f"```console\n$ rivage --version\n{rivage.__version__}\n```\n"
    run_text(shown, tmp_path)
    with pytest.raises(AssertionError, match=r"page\.md:1"):
        run_text(shown.replace(rivage.__version__, "0.0.0"), tmp_path)


def test_stars_are_expanded_as_in_a_shell(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name / "x").mkdir(parents=True)
    assert list(Page("page.md", tmp_path)._expanded(["*/x", "no-*", "*.md", "plain"])) == [
        "a/x", "b/x", "no-*", "*.md", "plain",
    ]  # fmt: skip


def test_console_blocks_split_into_commands() -> None:
    text = "$ rivage run \\\n    a.toml\ndone\n$ rivage cite runs/a\n"
    assert list(commands_of(text)) == [("rivage run      a.toml", "done\n"), ("rivage cite runs/a", "")]


def test_a_longer_fence_holds_a_shorter_one() -> None:
    (outer,) = blocks_of("````markdown\n```python\n1 / 0\n```\n````\n")
    assert outer.language == "markdown"
