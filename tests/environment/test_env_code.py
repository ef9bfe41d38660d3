"""Which files of a program travel to workers, and that the same files make the same archive anywhere."""

import io
import os
import socket
import sys
import tarfile
from pathlib import Path

import pytest

from starburst.environment.code import archive, collect
from starburst.environment.code_roots import Root
from starburst.errors import EnvironmentBuildError


def write(folder, *names, text="x = 1\n"):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def names_of(*roots, **options):
    tree = collect([root if isinstance(root, Root) else Root(str(root)) for root in roots], **options)
    return [file.name for file in tree.files]


# ---- what is importable ----


def test_modules_and_whole_packages_of_a_folder(tmp_path):
    write(
        tmp_path, "main.py", "helper.py", "shapes/__init__.py", "shapes/squares.py", "shapes/data/table.csv"
    )
    write(tmp_path, "notes.txt", "data.csv", "my-scripts/run.py", "Makefile")
    assert names_of(tmp_path) == [
        "0/helper.py",
        "0/main.py",
        "0/shapes/__init__.py",
        "0/shapes/data/table.csv",
        "0/shapes/squares.py",
    ]


def test_a_script_in_a_home_folder_does_not_drag_it_along(tmp_path):
    write(
        tmp_path,
        "script.py",
        "Documents/letter.odt",
        "projects/big/code.py",
        "Downloads/setup.py",
        "movie.mkv",
    )
    assert names_of(tmp_path) == ["0/script.py"]


def test_folders_without_init_are_packages_where_they_are_used_or_in_src(tmp_path):
    write(tmp_path, "tools/clean.py", "other/more.py", "src/spaced/part.py")
    assert names_of(tmp_path) == []
    assert names_of(tmp_path, names={"tools.clean"}) == ["0/tools/clean.py"]
    loaded = {"tools.clean": str(tmp_path / "tools/clean.py")}
    assert names_of(tmp_path, loaded=loaded) == ["0/tools/clean.py"]
    assert names_of(Root(str(tmp_path / "src"), namespaces=True)) == ["0/spaced/part.py"]


def test_a_root_may_be_one_package_of_a_folder(tmp_path):
    write(tmp_path, "mine/__init__.py", "tests/__init__.py", "setup.py")
    assert names_of(Root(str(tmp_path), frozenset({"mine"}))) == ["0/mine/__init__.py"]


def test_roots_keep_their_order_and_empty_ones_are_left_out(tmp_path):
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    write(one, "z.py")
    two.mkdir()
    write(three, "a.py")
    tree = collect([Root(str(one)), Root(str(two)), Root(str(three)), Root(str(tmp_path / "gone"))])
    assert ([file.name for file in tree.files], tree.roots) == (["0/z.py", "1/a.py"], ("0", "1"))
    assert tree.module_file("a") == str(three / "a.py")
    assert tree.module_file("b") is None
    assert tree.names == {"z", "a"}


def test_our_own_package_never_travels(tmp_path):
    import starburst

    source = str(Path(starburst.__file__).parents[1])
    assert not [name for name in names_of(Root(source, namespaces=True)) if name.startswith("0/starburst/")]


# ---- what never travels ----

SECRETS = [
    ".env",
    ".env.production",
    "prod.env",
    "server.pem",
    "tls.key",
    "id_rsa",
    "id_ed25519.pub",
    "credentials",
    "credentials.json",
    "my-service-account-1.json",
    "secrets.toml",
    ".netrc",
    ".pypirc",
    ".aws/config",
    ".ssh/known_hosts",
    ".git/config",
    ".hg/store",
    "node_modules/left-pad/index.js",
    "__pycache__/mod.cpython-311.pyc",
    "mod.pyc",
    "mine.egg-info/PKG-INFO",
]


def test_secrets_caches_and_environments_never_travel(tmp_path):
    write(
        tmp_path, *(f"pkg/{name}" for name in SECRETS), "pkg/__init__.py", "pkg/credentials.py", "pkg/keys.py"
    )
    write(
        tmp_path, "pkg/env/pyvenv.cfg", "pkg/env/lib/thing.py", "pkg/conda/conda-meta/x", "pkg/conda/lib.py"
    )
    kept = ["0/pkg/__init__.py", "0/pkg/credentials.py", "0/pkg/keys.py"]
    assert names_of(tmp_path) == kept
    write(tmp_path, "pyproject.toml", text='[tool.starburst]\ninclude = ["pkg/*", "pkg/**/*", "**/.env"]\n')
    assert names_of(tmp_path) == kept, "not even when they are asked for"
    loaded = {"pkg.env.lib.thing": str(tmp_path / "pkg/env/lib/thing.py")}
    assert names_of(tmp_path, loaded=loaded) == kept


@pytest.mark.parametrize("name", [".env", "id_rsa", "tls.key"])
def test_a_secret_does_not_travel_under_another_name(tmp_path, name):
    write(tmp_path, "pkg/__init__.py", name)
    (tmp_path / "pkg" / "settings.txt").symlink_to(tmp_path / name)
    assert names_of(tmp_path) == ["0/pkg/__init__.py"]


# ---- what Git ignores ----


def test_gitignore_counts_from_the_top_of_the_checkout(tmp_path):
    (tmp_path / ".git").mkdir()
    write(tmp_path, ".gitignore", text="*.log\n/job/pkg/big/\n")
    write(
        tmp_path / "job", "main.py", "pkg/__init__.py", "pkg/run.log", "pkg/big/array.py", "pkg/sub/keep.log"
    )
    write(tmp_path / "job/pkg/sub", ".gitignore", text="!keep.log\n")
    assert names_of(tmp_path / "job") == ["0/main.py", "0/pkg/__init__.py", "0/pkg/sub/keep.log"]


def test_an_ignored_module_that_the_program_has_imported_travels(tmp_path):
    write(tmp_path, ".gitignore", text="_version.py\ngenerated/\n")
    write(tmp_path, "pkg/__init__.py", "pkg/_version.py", "pkg/generated/api.py", "pkg/generated/rest.py")
    assert names_of(tmp_path) == ["0/pkg/__init__.py"]
    loaded = {
        "pkg._version": str(tmp_path / "pkg/_version.py"),
        "pkg.generated.api": str(tmp_path / "pkg/generated/api.py"),
        "elsewhere": "/nowhere/elsewhere.py",
    }
    assert names_of(tmp_path, loaded=loaded) == [
        "0/pkg/__init__.py",
        "0/pkg/_version.py",
        "0/pkg/generated/api.py",
    ]


def test_a_program_in_a_folder_that_git_ignores_has_its_modules(tmp_path):
    (tmp_path / ".git").mkdir()
    write(tmp_path, ".gitignore", text="scratch/\n*.tmp\n")
    write(tmp_path / "scratch/deep", "main.py", "helper.py")
    assert names_of(tmp_path / "scratch/deep") == ["0/helper.py", "0/main.py"]


def test_a_gitignore_that_is_no_text_is_passed_over(tmp_path):
    write(tmp_path, "main.py")
    (tmp_path / ".gitignore").write_bytes(b"\xff\xfe\x00[\n")
    assert names_of(tmp_path) == ["0/main.py"]


# ---- what the project says ----


def test_include_and_exclude_of_the_project(tmp_path):
    write(
        tmp_path,
        "pyproject.toml",
        text='[tool.starburst]\ninclude = ["config/*.yaml", "pkg/model.bin"]\nexclude = ["pkg/tests/", "old.py"]\n',
    )
    write(tmp_path, ".gitignore", text="*.bin\n")
    write(
        tmp_path, "main.py", "old.py", "pkg/__init__.py", "pkg/model.bin", "pkg/other.bin", "pkg/tests/t.py"
    )
    write(tmp_path, "config/a.yaml", "config/b.json")
    assert names_of(tmp_path) == ["0/config/a.yaml", "0/main.py", "0/pkg/__init__.py", "0/pkg/model.bin"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.starburst]\ninclude = 3\n", "include in .* is 3, not a list of patterns"),
        ('[tool.starburst]\nexclude = [""]\n', "exclude in .* not a list of patterns"),
        ('[tool.starburst]\ninclude = ["/etc/*"]\n', "names '/etc/\\*', outside the project"),
        ("[tool\n", "is not valid TOML"),
    ],
)
def test_wrong_rules_are_told(tmp_path, text, said):
    write(tmp_path, "main.py")
    write(tmp_path, "pyproject.toml", text=text)
    with pytest.raises(EnvironmentBuildError, match=said):
        names_of(tmp_path)


# ---- links, and other things that are no files ----


def test_links_within_the_checkout_are_followed_and_circles_end(tmp_path):
    (tmp_path / ".git").mkdir()
    app = tmp_path / "app"
    write(app, "pkg/__init__.py", "pkg/a.py")
    write(tmp_path / "common", "shared/__init__.py")
    (app / "shared").symlink_to(tmp_path / "common" / "shared")
    (app / "pkg" / "again").symlink_to(app / "pkg")
    (app / "pkg" / "up").symlink_to("..")
    (app / "pkg" / "self").symlink_to("self")
    (app / "pkg" / "nothing").symlink_to("gone")
    (app / "pkg" / "b.py").symlink_to("a.py")
    tree = collect([Root(str(app))])
    assert [file.name for file in tree.files] == [
        "0/pkg/__init__.py",
        "0/pkg/a.py",
        "0/pkg/b.py",
        "0/shared/__init__.py",
    ]
    assert tree.outside == ()


def test_a_link_that_leads_out_is_left_out_and_told(tmp_path):
    app = write(tmp_path / "app", "pkg/__init__.py")
    write(tmp_path / "disk", "big.bin", "tools/__init__.py")
    (app / "pkg" / "data").symlink_to(tmp_path / "disk")
    (app / "tools").symlink_to(tmp_path / "disk" / "tools")
    tree = collect([Root(str(app))])
    assert [file.name for file in tree.files] == ["0/pkg/__init__.py"]
    assert tree.outside == (str(app / "pkg" / "data"), str(app / "tools"))


def test_a_link_that_leads_out_and_was_imported_is_an_error(tmp_path):
    app = write(tmp_path / "app", "main.py")
    write(tmp_path / "disk", "tools/__init__.py")
    (app / "tools").symlink_to(tmp_path / "disk" / "tools")
    with pytest.raises(EnvironmentBuildError) as caught:
        collect([Root(str(app))], loaded={"tools": str(app / "tools/__init__.py")})
    assert "the module tools is imported through the link" in caught.value.message
    assert str(app / "tools") in caught.value.message
    assert str(tmp_path / "disk" / "tools") in caught.value.message


def test_sockets_and_pipes_are_passed_over(tmp_path, monkeypatch):
    write(tmp_path, "pkg/__init__.py")
    os.mkfifo(tmp_path / "pkg" / "pipe")
    monkeypatch.chdir(tmp_path / "pkg")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("socket")
        assert names_of(tmp_path) == ["0/pkg/__init__.py"]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    write(tmp_path, "main.py", "gone.py")
    tree = collect([Root(str(tmp_path))])
    (tmp_path / "gone.py").unlink()
    with pytest.raises(EnvironmentBuildError, match=r"gone\.py is part of the code .* No such file"):
        archive(tree)


# ---- size ----


def test_three_hundred_megabytes_are_refused_with_the_largest_files(tmp_path):
    write(tmp_path, "pkg/__init__.py", "pkg/small.txt")
    with (tmp_path / "pkg" / "weights.bin").open("wb") as file:
        file.truncate(300_000_000)
    with pytest.raises(EnvironmentBuildError) as caught:
        collect([Root(str(tmp_path))])
    assert "takes 300.0 MB in 3 files, more than the 52 MB" in caught.value.message
    first = caught.value.message.splitlines()[1]
    assert first.split() == ["300.0", "MB", str(tmp_path / "pkg" / "weights.bin")]
    assert "exclude = " in caught.value.hint
    write(tmp_path, ".gitignore", text="*.bin\n")
    assert names_of(tmp_path) == ["0/pkg/__init__.py", "0/pkg/small.txt"]


def test_a_large_file_beside_the_script_stays_where_it_is(tmp_path):
    write(tmp_path, "main.py")
    with (tmp_path / "data.bin").open("wb") as file:
        file.truncate(300_000_000)
    assert names_of(tmp_path) == ["0/main.py"]


# ---- the archive ----


def test_the_same_code_is_the_same_archive_wherever_and_whenever(tmp_path):
    made = []
    for place in ("here", "there"):
        write(tmp_path / place, "main.py", "pkg/__init__.py", "pkg/ünï.txt")
        (tmp_path / place / "pkg" / "run.sh").write_text("#!/bin/sh\n")
        (tmp_path / place / "pkg" / "run.sh").chmod(0o755)
        made.append(archive(collect([Root(str(tmp_path / place))])))
        os.utime(tmp_path / place / "main.py", (1, 1))
    assert made[0] == made[1]
    assert made[0].n_files == 4
    with tarfile.open(fileobj=io.BytesIO(made[0].data)) as tar:
        members = {member.name: member for member in tar}
    assert list(members) == sorted(members)
    assert {(m.mtime, m.uid, m.uname) for m in members.values()} == {(0, 0, "")}
    assert members["0/pkg/run.sh"].mode == 0o755
    (tmp_path / "there" / "main.py").write_text("x = 2\n")
    assert archive(collect([Root(str(tmp_path / "there"))])).sha256 != made[0].sha256


def test_a_file_that_was_written_anew_makes_another_tree(tmp_path):
    write(tmp_path, "main.py")
    before = collect([Root(str(tmp_path))])
    assert collect([Root(str(tmp_path))]) == before
    write(tmp_path, "main.py", text="x = 2\n")
    assert collect([Root(str(tmp_path))]) != before


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_names_that_are_no_text_travel_too(tmp_path):
    write(tmp_path, "pkg/__init__.py")
    (tmp_path / "pkg" / "\udcff.txt").write_text("x")
    tree = collect([Root(str(tmp_path))])
    with tarfile.open(fileobj=io.BytesIO(archive(tree).data)) as tar:
        assert tar.getnames() == ["0/pkg/__init__.py", "0/pkg/\udcff.txt"]
