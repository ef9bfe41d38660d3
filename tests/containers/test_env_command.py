"""``starburst env`` on a real registry: what it says is built is there, and what is there is not built again."""

import json

from starburst.cli.main import main
from starburst.client.engine import engine
from starburst.ops.environments import open_deployment
from worker_image import BASE

PROJECT = """\
[tool.starburst]
base_image = "{registry}/{base}:latest"
environment = "installed"
exclude_packages = {exclude}
"""


def said(capsys, *command):
    assert main(["env", *command, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_build_show_rebuild(tmp_path, registry, monkeypatch, capsys, data_dir):
    from importlib.metadata import distributions

    monkeypatch.delenv("STARBURST_IMAGE")
    monkeypatch.setenv("STARBURST_CACHE_DIR", str(tmp_path / "cache"))
    keep = {"starburst-cloud", "msgspec", "pip"}
    exclude = sorted({each.metadata["Name"] for each in distributions()} - keep)
    folder = tmp_path / "project"
    folder.mkdir()
    text = PROJECT.format(registry=registry.address, base=BASE, exclude=json.dumps(exclude))
    (folder / "pyproject.toml").write_text(text)
    before = said(capsys, "show", str(folder))
    assert before["digest"] is None
    built = said(capsys, "build", str(folder))
    assert built["built"]
    assert registry.manifest("starburst-worker", built["tag"]).digest == built["digest"]
    assert built["reference"].endswith(f"starburst-worker@{built['digest']}")
    [log] = (data_dir / "builds").glob("*.log")
    assert "push" in log.read_text()
    again = said(capsys, "build", str(folder))
    assert (again["built"], again["digest"]) == (False, built["digest"])
    after = said(capsys, "show", str(folder))
    assert (after["tag"], after["digest"]) == (built["tag"], built["digest"])
    assert main(["env", "rebuild", str(folder)]) == 0
    out = capsys.readouterr()
    assert out.out.strip() == built["reference"], "the same inputs give the same image"
    assert "starburst: ✓ install" in out.err
    assert engine.run(open_deployment(None))[1].repository in built["reference"]
