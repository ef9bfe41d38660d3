"""Take out of installed packages what tells of this machine, so that the same lock gives the same files everywhere."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from pathlib import Path

__all__ = ["tidy"]

_OF_THE_BUILD = {"uv_build.json", "uv_cache.json"}
_SHEBANG = re.compile(rb"\A#!(?:[^\n]*python[^\n]*\n|/bin/sh\n'''exec' [^\n]*\n' '''\n)")
_ANY_PYTHON = b"#!/usr/bin/env python3\n"


def tidy(folder: Path) -> None:
    """Scripts start whichever Python is first on the path; records of paths, times, tokens and this build go."""
    (folder / ".lock").unlink(missing_ok=True)
    changed = {f"bin/{path.name}": _portable(path) for path in sorted(folder.glob("bin/*")) if path.is_file()}
    for about in sorted(folder.glob("*.dist-info")):
        gone = {f"{about.name}/{name}" for name in _OF_THE_BUILD if (about / name).exists()}
        origin = f"{about.name}/direct_url.json"
        url = _url(folder / origin)
        if url.startswith("file:"):
            gone.add(origin)
        elif "?" in url:
            # Signatures and tokens, which are of the one who fetched it.
            text = (folder / origin).read_text(encoding="utf-8")
            changed[origin] = text.replace(url, url.partition("?")[0]).encode()
            _replace(folder / origin, changed[origin])
        for name in gone:
            (folder / name).unlink()
        _correct(about / "RECORD", gone, changed)


def _portable(path: Path) -> bytes:
    data = path.read_bytes()
    changed = _SHEBANG.sub(_ANY_PYTHON, data, count=1)
    if changed != data:
        _replace(path, changed)
    return changed


def _url(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("url", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _correct(record: Path, gone: set[str], changed: dict[str, bytes]) -> None:
    try:
        text = record.read_text(encoding="utf-8")
    except OSError:
        return
    rows = [row for row in csv.reader(io.StringIO(text)) if row and row[0] not in gone]
    for row in rows:
        if row[0] in changed:
            data = changed[row[0]]
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            row[1:] = [f"sha256={digest}", str(len(data))]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(sorted(rows))
    if out.getvalue() != text:
        _replace(record, out.getvalue().encode())


def _replace(path: Path, data: bytes) -> None:
    """A new file: the old one may be one and the same with that in uv's cache."""
    partial = path.with_name(f".{path.name}.new")
    partial.write_bytes(data)
    partial.chmod(path.stat().st_mode & 0o777)
    partial.replace(path)
