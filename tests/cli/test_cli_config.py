"""The config commands."""

from __future__ import annotations

import json
import os
import tomllib

import pytest

from starburst.cli.main import main


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("STARBURST_CONFIG_DIR", str(tmp_path / "config"))
    return tmp_path / "config" / "config.toml"


def answer(capsys, *arguments):
    assert main([*arguments, "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return json.loads(shown.out)


def test_set_get_unset_for_programs(file, capsys):
    assert answer(capsys, "config", "path") == {"path": str(file), "exists": False}
    assert answer(capsys, "config", "set", "workers", "8") == {
        "name": "workers",
        "value": 8,
        "origin": str(file),
        "file": str(file),
    }
    assert tomllib.loads(file.read_text()) == {"workers": 8}
    assert answer(capsys, "config", "get", "workers") == {"name": "workers", "value": 8}
    assert answer(capsys, "config", "unset", "workers")["value"] == os.cpu_count()
    assert answer(capsys, "config", "get", "region") == {"name": "region", "value": None}


def test_set_get_unset_for_people(file, capsys):
    assert main(["config", "set", "store", "s3://a-bucket"]) == 0
    assert main(["config", "get", "store"]) == 0
    assert main(["config", "unset", "store"]) == 0
    assert main(["config", "get", "store"]) == 0
    assert main(["config", "path"]) == 0
    assert capsys.readouterr().out == f"store = s3://a-bucket\ns3://a-bucket\nstore = None\n\n{file}\n"


def test_a_set_value_that_the_environment_hides_is_said_to_be(monkeypatch, capsys, file):
    monkeypatch.setenv("STARBURST_WORKERS", "3")
    assert main(["config", "set", "workers", "8"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "workers = 3\n"
    assert "environment STARBURST_WORKERS goes before" in shown.err


def test_show(capsys, file, data_dir):
    main(["config", "set", "workers", "8"])
    capsys.readouterr()
    shown = answer(capsys, "config", "show")
    assert shown["settings"]["workers"] == {"value": 8, "origin": str(file)}
    assert shown["settings"]["slots"] == {"value": 1, "origin": "default"}
    assert shown["store_url"] == (data_dir / "store").as_uri()
    assert main(["config", "show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["SETTING", "VALUE", "FROM"]
    assert any(line.split() == ["workers", "8", str(file)] for line in lines)


def test_a_broken_file(file, capsys):
    file.parent.mkdir()
    file.write_text("workers = [")
    assert main(["config", "show"]) == 2
    assert str(file) in capsys.readouterr().err
