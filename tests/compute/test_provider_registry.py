import sys

import pytest

from starburst.compute import load_provider
from starburst.compute.local import LocalProvider
from starburst.errors import ProviderError


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A real installed distribution, as small as can be."""
    (tmp_path / "sb_plugin.py").write_text(
        "from starburst.compute.local import LocalProvider\n"
        "from starburst.errors import ProviderError\n"
        "class Mine(LocalProvider):\n    name = 'MINE'\n"
        "class Half:\n    name = 'HALF'\n"
        "text = 'text'\n"
        "def fails():\n    raise KeyError('token')\n"
        "def explains():\n    raise ProviderError('no licence', hint='buy one')\n"
    )
    info = tmp_path / "sb_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sb-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[starburst.providers]\nMine = sb_plugin:Mine\nHALF = sb_plugin:Half\nTEXT = sb_plugin:text\n"
        "FAILS = sb_plugin:fails\nEXPLAINS = sb_plugin:explains\nBROKEN = sb_no_such_module:X\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("sb_plugin", None)


@pytest.mark.parametrize("name", ["LOCAL", "local"])
def test_a_built_in_provider_by_name(name):
    assert isinstance(load_provider(name), LocalProvider)


def test_an_unknown_name_lists_those_there_are(plugin):
    with pytest.raises(ProviderError, match="no provider 'MOON'") as caught:
        load_provider("MOON")
    assert "BROKEN, EC2, EXPLAINS, FAILS, FARGATE, HALF, LOCAL, MINE, TEXT" in caught.value.hint


@pytest.mark.parametrize("name", ["Mine", "MINE", "mine"])
def test_a_provider_of_another_package(plugin, name):
    assert load_provider(name).name == "MINE"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("BROKEN", "sb_no_such_module"),
        ("HALF", "lacks methods"),
        ("TEXT", "cannot be called"),
        ("FAILS", "cannot be set up: KeyError"),
        ("EXPLAINS", "no licence"),
    ],
)
def test_a_provider_that_is_broken_says_why_and_hurts_no_other(plugin, name, message):
    with pytest.raises(ProviderError, match=message):
        load_provider(name)
    assert load_provider("MINE").name == "MINE"
