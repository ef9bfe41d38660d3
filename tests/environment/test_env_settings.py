"""``[tool.starburst]`` in ``pyproject.toml``: what is wrong is said before anything is built."""

import pytest

from starburst.environment.settings import project_settings
from starburst.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[tool]\nstarburst = 3\n", "Expected `object`, got `int`"),
        ("tool = 1\n", "Expected `object`, got `int`"),
        ("[tool.starburst\n", "is wrong"),
        ('[tool.starburst]\nsystem_packages = "libgl1"\n', "Expected `array`, got `str`"),
        ('[tool.starburst]\nsystem-package = ["libgl1"]\n', "has system_package, which is not known"),
        ('[tool.starburst]\nbuild = "codebild"\n', "build = 'codebild' .* is not known"),
        ('[tool.starburst]\nengine = "dokcer"\n', "engine = 'dokcer' .* is not known"),
        (
            '[tool.starburst]\ndockerfile = "D"\nsystem_packages = ["libgl1"]\n',
            "has a dockerfile, and system_packages, which would have no effect",
        ),
        (
            '[tool.starburst]\ndockerfile = "D"\nbase-image = "python:3.11"\n',
            "has a dockerfile, and base_image, which would have no effect",
        ),
    ],
)
def test_settings_that_are_wrong(tmp_path, text, says):
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        project_settings(tmp_path)
    assert str(tmp_path / "pyproject.toml") in str(caught.value)
    assert caught.value.hint


def test_settings_that_are_right(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[tool.starburst]\ndockerfile = "docker/Dockerfile"\nengine = "podman"\nbuild = "codebuild"\n'
    )
    settings = project_settings(tmp_path)
    assert settings.dockerfile == tmp_path / "docker" / "Dockerfile"
    assert (settings.engine, settings.build) == ("podman", "codebuild")
