"""Logins and indexes: where they are used, and where they are not seen."""

import base64
import hashlib
import json

import pytest
from environment_parts import PLATFORM, lock_of, run
from wheelhouse import serve_index

from starburst.environment.access import Access, logins_in, without_login
from starburst.environment.build import install
from starburst.environment.lock import Lock, Requirement
from starburst.environment.steps import Steps
from starburst.errors import EnvironmentBuildError


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://joe:secret@host/x", "https://host/x"),
        ("https://joe:my@secret@host:8443/x", "https://host:8443/x"),
        ("git+https://secret@host/x.git@main", "git+https://host/x.git@main"),
        ("git+ssh://git@host/x.git@main", "git+ssh://git@host/x.git@main"),
        ("https://host/@scope/x@1", "https://host/@scope/x@1"),
    ],
)
def test_no_part_of_a_password_is_shown(address, shown):
    assert without_login(f"fetch {address} now") == f"fetch {shown} now"
    wanted = address if shown != address else shown
    assert Access(logins=logins_in(address)).with_login(shown) == wanted


def test_each_repository_of_a_server_has_its_own_login():
    one, two = "git+https://a:1@host/one.git@v1", "git+https://b:2@host/two.git"
    access = Access(logins=logins_in(f"one @ {one}\ntwo @ {two}#subdirectory=x\n"))
    commit = "@" + "0" * 40
    assert access.with_login(f"git+https://host/one.git{commit}") == f"git+https://a:1@host/one.git{commit}"
    assert access.with_login(f"git+https://host/two.git{commit}") == f"git+https://b:2@host/two.git{commit}"
    assert access.with_login("https://host/other.whl").endswith("@host/other.whl")


def test_a_password_with_an_at_sign_is_in_no_lock_and_no_log(tmp_path, house, monkeypatch):
    monkeypatch.setenv("STARBURST_CACHE_DIR", str(tmp_path / "cache"))
    with serve_index(house, login="joe:my@secret") as url:
        address = url.replace("simple/", "files/pure-1.0-py3-none-any.whl")
        login = address.replace("://", "://joe:my@secret@")
        (tmp_path / "requirements.txt").write_text(f"pure @ {login}\n")
        lock, steps = lock_of(tmp_path)
        run(install(lock, tmp_path / "out", steps))
    assert lock.text() == f"pure @ {address}\n"
    assert (tmp_path / "out" / "pure.py").is_file()
    assert "secret" not in "\n".join(line.replace(str(tmp_path), "") for line in steps.log)
    kept = (path for path in tmp_path.rglob("*") if path.is_file() and path.name != "requirements.txt")
    assert not [path for path in kept if b"secret" in path.read_bytes()]


@pytest.mark.parametrize(("status", "says"), [(401, "401 Unauthorized"), (403, "403 Forbidden")])
def test_a_further_index_that_refuses_us_is_named(tmp_path, house, monkeypatch, status, says):
    for name in ("PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name)
    empty = tmp_path / "empty"
    empty.mkdir()
    with (
        serve_index(empty) as usual,
        serve_index(house, login="joe:secret", refuse=status) as private,
    ):
        monkeypatch.setenv("PIP_INDEX_URL", usual)
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", private)
        (tmp_path / "requirements.txt").write_text("pure==1.0\n")
        with pytest.raises(EnvironmentBuildError) as caught:
            lock_of(tmp_path)
        assert f"{private} refused us ({says}" in str(caught.value)
        assert "so pure was not found" in str(caught.value)
        assert ".netrc" in caught.value.hint
        lock = Lock.of(PLATFORM, [Requirement("pure", "1.0")], source_name="uv.lock", folder=tmp_path)
        with pytest.raises(EnvironmentBuildError, match=r"refused us \(4"):
            run(install(lock, tmp_path / "out", Steps()))


def test_a_token_of_an_address_is_not_in_what_is_installed(tmp_path, house, monkeypatch):
    monkeypatch.setenv("TOKEN", "secret")
    with serve_index(house) as url:
        address = url.replace("simple/", "files/pure-1.0-py3-none-any.whl")
        (tmp_path / "requirements.txt").write_text(f"pure @ {address}?token=${{TOKEN}}\n")
        lock, steps = lock_of(tmp_path)
        run(install(lock, tmp_path / "out", steps))
    assert "secret" not in lock.text() + "\n".join(steps.log)
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file() and b"secret" in p.read_bytes()]
    about = tmp_path / "out" / "pure-1.0.dist-info"
    data = (about / "direct_url.json").read_bytes()
    assert json.loads(data)["url"] == address
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    assert f"direct_url.json,sha256={digest},{len(data)}\n" in (about / "RECORD").read_text()
