"""Stored settings: layers, checks, and a file that survives being edited by a person and by a program."""

from __future__ import annotations

import dataclasses
import multiprocessing
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from starburst import config
from starburst.config import Settings
from starburst.errors import ConfigError
from starburst.options import Options


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name in Settings.names():
        monkeypatch.delenv(f"STARBURST_{name.upper()}", raising=False)
    monkeypatch.setenv("STARBURST_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("STARBURST_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def write(text):
    path = config.config_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_defaults_are_those_of_a_call():
    loaded = config.load_settings()
    assert loaded == Settings()
    assert loaded.launch_type == "LOCAL"
    assert loaded.options() == Options()


def test_every_option_of_a_call_is_a_setting():
    assert set(Options.names()) <= set(Settings.names())


def test_default_store_is_a_folder_in_the_data_directory(folder):
    assert config.default_store_url() == (folder / "data" / "store").as_uri()
    assert not (folder / "data").exists(), "asking for the address must not make the folder"


def test_layers(monkeypatch):
    path = write('workers = 8\nmemory = "8GB"\n')
    monkeypatch.setenv("STARBURST_WORKERS", "16")
    loaded = config.load()
    assert (loaded.settings.workers, loaded.settings.memory, loaded.settings.slots) == (16, "8GB", 1)
    assert loaded.origins["workers"] == "environment STARBURST_WORKERS"
    assert loaded.origins["memory"] == str(path)
    assert loaded.origins["slots"] == "default"
    assert loaded.settings.options().workers == 16


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("workers", "8", 8),
        ("store", "s3://a-bucket/some/prefix", "s3://a-bucket/some/prefix"),
        ("cpu", "0.5", 0.5),
        ("memory", "8GB", "8GB"),
        ("memory", "16", 16.0),
        ("timeout", "90m", "90m"),
        ("idle_timeout", "30", 30.0),
        ("region", "eu-central-1", "eu-central-1"),
        ("profile", 'od"d \\ näme', 'od"d \\ näme'),
    ],
)
def test_set_and_get(name, text, value):
    path = config.set_value(name, text)
    assert config.get_value(name) == value
    assert tomllib.loads(path.read_text("utf-8")) == {name: value}
    assert sorted(p.name for p in path.parent.iterdir()) == ["config.toml"], "no temporary file is left"


def test_setting_again_keeps_comments_and_the_other_lines():
    path = write('# mine\nworkers = 8  # as many as the quota\n\nregion = "eu-central-1"\n')
    config.set_value("workers", "9")
    config.set_value("slots", "4")
    assert path.read_text("utf-8") == '# mine\nworkers = 9\n\nregion = "eu-central-1"\nslots = 4\n'
    config.unset_value("region")
    config.unset_value("region")
    assert path.read_text("utf-8") == "# mine\nworkers = 9\n\nslots = 4\n"


def test_a_layout_that_cannot_be_edited_is_left_alone():
    text = 'profile = """\nworkers = 3\n"""\n'
    path = write(text)
    with pytest.raises(ConfigError, match="cannot be changed"):
        config.unset_value("profile")
    assert path.read_text("utf-8") == text


def test_unknown_names_point_to_the_nearest():
    write("worker = 8\n")
    with pytest.raises(ConfigError) as caught:
        config.load_settings()
    assert "'worker'" in caught.value.message
    assert "config.toml" in caught.value.message
    assert "did you mean 'workers'?" in (caught.value.hint or "")
    with pytest.raises(ConfigError, match="regoin"):
        config.set_value("regoin", "x")
    with pytest.raises(ConfigError, match="'nothing like it'"):
        config.get_value("nothing like it")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('workers = "eight"\n', ["workers", "config.toml", "a whole number"]),
        ("workers = true\n", ["workers", "a whole number"]),
        ("workers = 0\n", ["workers=0", "config.toml"]),
        ("workers = 501\n", ["501", "config.toml"]),
        ("store = 5\n", ["store", "a text"]),
        ('memory = "much"\n', ["memory", "config.toml"]),
        ("[table]\nx = 1\n", ["'table'", "config.toml"]),
        ("workers = \n", ["not valid TOML", "config.toml"]),
    ],
)
def test_a_wrong_file_is_named_with_the_fault(text, words):
    write(text)
    with pytest.raises(ConfigError) as caught:
        config.load_settings()
    assert all(word in caught.value.message for word in words), caught.value.message


def test_wrong_environment_is_named(monkeypatch):
    monkeypatch.setenv("STARBURST_WORKERS", "many")
    with pytest.raises(ConfigError, match="environment STARBURST_WORKERS = 'many'"):
        config.load_settings()
    monkeypatch.setenv("STARBURST_WORKERS", "0")
    with pytest.raises(ConfigError, match=r"workers=0 .*environment STARBURST_WORKERS"):
        config.load_settings()


def test_a_refused_value_changes_nothing():
    path = config.set_value("workers", "8")
    for name, text in [("workers", "0"), ("workers", "x"), ("idle_timeout", "soon"), ("max_workers", "4")]:
        with pytest.raises(ConfigError):
            config.set_value(name, text)
    assert tomllib.loads(path.read_text("utf-8")) == {"workers": 8}


def test_a_folder_that_cannot_be_written(folder):
    (folder / "config").write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match="cannot be"):
        config.set_value("workers", "8")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text == text.strip())
)
def test_any_text_survives_the_file(text):
    config.set_value("profile", text)
    assert config.get_value("profile") == text


def _set(name, text):
    config.set_value(name, text)


def test_concurrent_writers_leave_a_whole_file():
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_set, args=("region", f"region-{n}" * 50)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert str(config.get_value("region")).startswith("region-")


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().workers = 3  # type: ignore[misc]


def test_importing_touches_no_file(tmp_path):
    code = "import starburst.config, sys; assert 'platformdirs' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert list(Path(tmp_path).iterdir()) == []
