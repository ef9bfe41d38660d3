"""What of a project is sent to the builder of its Dockerfile, and what makes it build anew."""

import pytest
from environment_parts import PLATFORM

from starburst.environment.docker_context import context_files, ignore_lines
from starburst.environment.dockerfile import dockerfile_recipe


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("RUN apt-get update", False),
        ("ENV COPY=1", False),
        ("COPY . /data", True),
        ("ONBUILD ADD . /data", True),
        ("run --mount=type=bind,target=/x ls /x", True),
        ("  copy data.txt /", True),
    ],
)
def test_code_beside_a_dockerfile_builds_nothing_anew(tmp_path, line, read):
    (tmp_path / "Dockerfile").write_text(f"FROM python:3.11-slim-bookworm\n{line}\n")
    (tmp_path / "train.py").write_text("x = 1\n")
    before = dockerfile_recipe(tmp_path / "Dockerfile", PLATFORM).tag()
    (tmp_path / "train.py").write_text("x = 2\n")
    after = dockerfile_recipe(tmp_path / "Dockerfile", PLATFORM)
    assert (before != after.tag()) is read
    assert after.folder == (tmp_path if read else None)


def test_no_secrets_and_no_environments_are_sent(tmp_path):
    secrets = [
        "credentials.json",
        "prod.env",
        "a/key.p12",
        "a/secrets.toml",
        "my-service-account.json",
        "id_ecdsa",
    ]
    for name in [*secrets, "venv/bin/python", "a/data.json", "a/credentials.py"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / ".dockerignore").write_text("!credentials.json\n")
    assert set(context_files(tmp_path, ignore_lines(tmp_path))) == {
        ".dockerignore",
        "a/data.json",
        "a/credentials.py",
    }
