"""Every code block of README and docs runs, and what they say is complete: names, commands, options, defaults."""

import asyncio
import dataclasses
import re

import pytest
import typer
from docs_markdown import ROOT, blocks, documents, sections, table_rows
from docs_reader import Reader, leads_to_makefile

import starburst
from starburst.cli import exit_codes
from starburst.cli.main import app
from starburst.compute.local import LocalProvider
from starburst.config import Settings
from starburst.environment.settings import PROJECT_KEYS
from starburst.testing.aws import SimOptions, SimulatedAws

DOCS = ROOT / "docs"
LOOKED_UP = re.compile(r"(make|pip|git|cd)\b")
"""Blocks that begin so are not run, they would install things; the targets and extras that they name must exist."""

NOT_RUN = {
    "export AWS_ENDPOINT_URL_S3=": "the S3 server of the tests has an address of its own",
    "starburst --install-completion": "it would write into the shell's own start-up file",
    "starburst demo --quick": "tests/cli/test_cli_demo.py runs the demo, which takes half a minute",
    "IMAGE=123456789012.dkr.ecr.": "it needs Docker; tests/containers pushes an image and runs it",
    "aws iam create-policy": "it needs AWS's own command line; tests/sim and tests/ops enforce the documents",
}
"""How a block begins: why it is not run."""


@pytest.fixture
def reader(tmp_path, data_dir, account, request):
    """A reader in an empty folder; sessions that the document leaves behind are ended when it is read."""

    def s3():
        seaweed = request.getfixturevalue("seaweed")
        seaweed.make_bucket("my-bucket")
        return seaweed.environment()

    folder = tmp_path / "reader"
    folder.mkdir()
    yield Reader(folder, {"s3": s3, "aws": account})
    provider = LocalProvider(data_dir)
    for left in (data_dir / "local").glob("*"):
        asyncio.run(provider.stop(left.name, grace_s=2))


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_code_blocks_run(document, reader):
    for block in blocks(document):
        lines = block.text.splitlines()
        if LOOKED_UP.match(lines[0]):
            wrong = {line: found for line in lines if (found := leads_to_makefile(line))}
            assert not wrong, f"{block}: {wrong}"
        elif not block.text.startswith(tuple(NOT_RUN)):
            reader.read(block)


def test_what_is_not_run_is_there():
    texts = [block.text for document in documents() for block in blocks(document)]
    assert [start for start in NOT_RUN if not any(text.startswith(start) for text in texts)] == []


def test_every_fence_is_a_block():
    for document in documents():
        fences = re.findall(r"^ *```", document.read_text(), flags=re.MULTILINE)
        assert len(fences) == 2 * len(blocks(document)), document


@pytest.mark.parametrize("name", starburst.__all__)
def test_public_name_is_documented(name):
    text = "".join(path.read_text() for path in documents() if path.name != "protocol.md")
    assert re.search(rf"\b{name}\b", text)


@pytest.mark.parametrize("name", [name for name in dir(starburst.Session) if not name.startswith("_")])
def test_method_of_session_is_documented(name):
    assert re.search(rf"\b{name}\b", (DOCS / "guide.md").read_text())


def commands(group=None, path=""):
    """All commands by what one types, with their options."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            flags = [flag for each in command.params for flag in (*each.opts, *each.secondary_opts)]
            yield f"{path}{name}", [flag for flag in flags if flag.startswith("--")]


@pytest.mark.parametrize(("name", "flags"), list(commands()))
def test_command_is_documented(name, flags):
    parts = sections(DOCS / "cli.md")
    heading = next((each for each in parts if each.startswith(f"`starburst {name.split()[0]}")), None)
    assert heading is not None, f"docs/cli.md has no section on {name}"
    text = heading + parts[heading]
    common = ("--json", "--debug", "--store")
    assert f"starburst {name}" in text
    assert [flag for flag in flags if flag not in common and flag not in text] == []


def test_exit_codes_are_documented():
    rows = {row[0].strip("`"): row[1] for row in table_rows(sections(DOCS / "cli.md")["Exit codes"])}
    assert rows == {str(code): meaning for code, meaning in exit_codes.MEANINGS.items()}


def test_settings_are_documented_with_their_defaults():
    settings = Settings()
    rows = {row[0].strip("`"): row for row in table_rows((DOCS / "settings.md").read_text())}
    assert [name for name in Settings.names() if name not in rows] == []
    for name in Settings.names():
        default = getattr(settings, name)
        text = f"{default:g}" if isinstance(default, float) else str(default)
        by_launch_type = dict.fromkeys(("workers", "cpu", "memory", "idle_timeout"), "by launch type")
        written = by_launch_type.get(name, "none" if default is None else f"`{text}`")
        assert rows[name][1] == written, name
        assert rows[name][3] == f"`STARBURST_{name.upper()}`"


def test_keys_of_projects_are_documented():
    rows = table_rows(sections(DOCS / "environments.md")["Keys of `[tool.starburst]`"])
    assert [row[0].strip("`") for row in rows] == list(PROJECT_KEYS)


def test_every_error_is_documented():
    tree = (DOCS / "failures.md").read_text()
    kinds = [
        name
        for name in starburst.__all__
        if isinstance(value := getattr(starburst, name), type) and issubclass(value, starburst.StarburstError)
    ]
    assert [name for name in kinds if f"`{name}`" not in tree] == []


def test_the_simulated_account_is_documented():
    text = (DOCS / "simulated-aws.md").read_text()
    options = [field.name for field in dataclasses.fields(SimOptions)]
    verbs = [name for name in vars(SimulatedAws) if not name.startswith("_")]
    assert [name for name in options if f"`{name}`" not in text] == []
    assert [name for name in verbs if f"`{name}(" not in text] == []


def test_readme_begins_with_what_it_is_an_example_and_two_commands():
    screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    example = re.search(r"```python\n(.*?)```", screen, flags=re.DOTALL)[1]
    assert len(example.strip().splitlines()) <= 12
    assert screen.index("starburst.map") < screen.index("make demo") < screen.index("make test")
