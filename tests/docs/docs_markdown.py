"""Reading the documents: their code blocks, tables and headings.

A block may have a comment on the line before it, which readers do not see:

    <!-- continues -->      goes on in the process of the Python block before it
    <!-- file: NAME -->     is saved as NAME beside the scripts, and not run by itself
    <!-- output -->         is what the block before it printed; … stands for anything
    <!-- s3 -->             runs with a bucket "my-bucket" on an S3 server
    <!-- aws -->            runs on a simulated AWS account
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FENCED = re.compile(
    r"^(?:<!-- (?P<mark>[^>]*?) -->\n)?```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a document."""

    document: Path
    line: int
    language: str
    text: str
    mark: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def documents():
    """README and everything in docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(document):
    """Its code blocks, in order."""
    text = document.read_text()
    return [
        Block(
            document,
            text.count("\n", 0, match.start("text")),
            match["language"],
            match["text"],
            match["mark"] or "",
        )
        for match in FENCED.finditer(text)
    ]


def sections(document):
    """Text by heading, without the text below headings of its own."""
    parts = re.split(r"^#+ +(.*)$", document.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table_rows(text):
    """Rows of all tables in a text, as lists of cells; without heads."""
    rows = []
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        rows += [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    return rows
