"""Container engines of this machine: which one works, and how it builds an image and hands it out.

Arguments are lists, there is no shell. A registry's password goes to a program by its standard input only, into a file
that is removed in the end; the user's own logins are read, never written.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from starburst.environment.dockerfile import CHECKED, Recipe
from starburst.environment.image_errors import WAYS_OUT
from starburst.environment.registry_auth import Credentials
from starburst.environment.registry_http import LOOPBACK
from starburst.environment.steps import Step, Steps
from starburst.errors import EnvironmentBuildError

__all__ = ["Engine", "EngineName", "Login", "Logins", "find_engine"]

EngineName = Literal["docker", "podman", "buildah"]

_LOOK_S = 20.0
_LOGIN_S = 60.0
_SAVE_S = 1800.0
_READ_BYTES = 1 << 16
_STEP = re.compile(r"^(?:STEP \d+(?:/\d+)?: |#\d+ \[[^\]]*\d+/\d+\] )(.+)$")


@dataclass(frozen=True, slots=True)
class Login:
    """How the base image can be pulled.

    Attributes:
        host: The registry, as in the name after ``FROM``.
        credentials: Who asks.
    """

    host: str
    credentials: Credentials


@dataclass(frozen=True, slots=True)
class Logins:
    """What makes programs use the logins of one build.

    Attributes:
        arguments: For podman and buildah.
        environment: For docker.
    """

    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine.

    Attributes:
        name: Which one.
        command: The program and its global options.
    """

    name: EngineName
    command: tuple[str, ...]

    async def build(
        self,
        recipe: Recipe,
        tag: str,
        steps: Steps,
        step: Step,
        *,
        folder: Path,
        logins: Logins,
        anew: bool = False,
        timeout_s: float,
    ) -> tuple[int, list[str]]:
        """Build an image and keep it in the engine as ``tag``; returns the exit code and what was printed.

        Args:
            recipe: What is built.
            tag: Its name in the engine.
            steps: Gets all lines.
            step: Shows where the build is.
            folder: A folder for files of this build.
            logins: Of registries.
            anew: Take no step that was kept.
            timeout_s: How long it may take.

        Raises:
            EnvironmentBuildError: It took longer.
        """
        file, ignore = folder / "Dockerfile", folder / "Dockerfile.dockerignore"
        file.write_text(recipe.text, encoding="utf-8")
        ignore.write_text(
            "".join(f"{line}\n" for line in recipe.ignore), encoding="utf-8"
        )  # BuildKit finds it there
        context = recipe.folder
        if context is None:
            context = folder / "empty"
            context.mkdir()
        common = [
            *(["--no-cache"] if anew else []),
            f"--platform=linux/{recipe.platform.oci_architecture}",
            f"--file={file}",
            f"--tag={tag}",
            str(context),
        ]
        if self.name == "docker":
            arguments = ["buildx", "build", "--load", "--progress=plain", "--provenance=false", *common]
        else:
            own = [
                "--layers",
                f"--ignorefile={ignore}",
                *_network(),
                *_plain_http(recipe.images),
                *logins.arguments,
            ]
            arguments = ["build" if self.name == "podman" else "bud", *own, *common]

        def show(line: str) -> None:
            if (match := _STEP.match(line)) and CHECKED not in match[1]:
                step.say(match[1][:60])

        return await _run(
            [*self.command, *arguments], steps, environment=logins.environment, show=show, timeout_s=timeout_s
        )

    async def save(self, tag: str, into: Path, steps: Steps) -> None:
        """Write an image into an archive, as ``docker save`` does.

        Raises:
            EnvironmentBuildError: It did not do it.
        """
        arguments = {
            "docker": ["save", f"--output={into}", tag],
            "podman": ["save", "--format=docker-archive", f"--output={into}", tag],
            "buildah": ["push", tag, f"docker-archive:{into}"],
        }[self.name]
        code, lines = await _run([*self.command, *arguments], steps, timeout_s=_SAVE_S)
        if code:
            raise EnvironmentBuildError(
                f"{self.name} built the image but does not hand it out: {_last(lines)}",
                hint="is there space left on the disk? podman system prune, docker system prune",
            )

    async def log_in(self, login: Login, folder: Path, steps: Steps) -> Logins:
        """Log in to a registry for one build; the password is in a file in ``folder`` until that goes.

        Raises:
            EnvironmentBuildError: The registry or the engine refuses.
        """
        who = ["login", "--username", login.credentials.username, "--password-stdin"]
        if self.name == "docker":
            _copy_docker_settings(folder, login.host)
            logins = Logins(environment={"DOCKER_CONFIG": str(folder)})
            command = [*self.command, *who, login.host]
        else:
            file = folder / "auth.json"
            _copy_logins(file)
            logins = Logins(arguments=(f"--authfile={file}",))
            command = [
                *self.command,
                *who,
                f"--authfile={file}",
                *_plain_http([f"{login.host}/"]),
                login.host,
            ]
        code, lines = await _run(
            command,
            steps,
            stdin=login.credentials.password,
            environment=logins.environment,
            timeout_s=_LOGIN_S,
        )
        if code:
            raise EnvironmentBuildError(
                f"{self.name} cannot log in to {login.host}, where the base image is: {_last(lines)}",
                hint="run the command again: tokens expire; or take another engine: engine in [tool.starburst]",
            )
        return logins


async def find_engine(wanted: str | None = None, *, steps: Steps) -> Engine:
    """The engine of this machine that works.

    Args:
        wanted: ``docker``, ``podman`` or ``buildah``; None for the first of these that works.
        steps: Gets what the engines say.

    Raises:
        EnvironmentBuildError: None works, or not the one that is wanted; the message says why.
    """
    names: tuple[EngineName, ...] = get_args(EngineName)
    if wanted is not None and wanted not in names:
        raise EnvironmentBuildError(
            f"engine = {wanted!r} in [tool.starburst] is none that can build images",
            hint=f"one of {', '.join(names)}",
        )
    reasons = []
    for name in names:
        if wanted not in (None, name):
            continue
        engine = Engine(name, (name,))
        why = await _why_not(engine, steps)
        if not why:
            return engine
        reasons.append(f"{name}: {why}")
    raise EnvironmentBuildError(
        f"there is no container engine here that can build the image ({'; '.join(reasons)})", hint=WAYS_OUT
    )


async def _why_not(engine: Engine, steps: Steps) -> str:
    if shutil.which(engine.command[0]) is None:
        return "not installed"
    checks = {
        "docker": [["version", "--format={{.Server.Version}}"], ["buildx", "version"]],
        "podman": [["info", "--format={{.Host.Arch}}"]],
        "buildah": [["images", "--quiet"]],
    }[engine.name]
    for arguments in checks:
        try:
            code, lines = await _run([*engine.command, *arguments], steps, timeout_s=_LOOK_S)
        except EnvironmentBuildError:
            return "it does not answer"
        if code and arguments[0] == "buildx":
            return "it has no buildx"
        if code:
            return _last(lines)
    return ""


async def _run(
    command: Sequence[str],
    steps: Steps,
    *,
    timeout_s: float,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    show: Callable[[str], None] = lambda _: None,
) -> tuple[int, list[str]]:
    """Run a program; all of its lines, also those for errors, in the order in which they came."""
    steps.note(f"$ {' '.join(command)}")
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, **(environment or {}), "BUILDKIT_PROGRESS": "plain"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # programs that ask for a password find no terminal, and all of them end with it
        )
    except OSError as error:
        return 127, [f"{command[0]}: {error.strerror}"]
    assert process.stdin is not None
    assert process.stdout is not None
    lines: list[str] = []
    try:
        async with asyncio.timeout(timeout_s):
            with contextlib.suppress(OSError):
                process.stdin.write(stdin.encode())
                await process.stdin.drain()
            process.stdin.close()
            async for line in _lines(process.stdout):
                lines.append(line)
                steps.note(line)
                show(line)
            await process.wait()
    except TimeoutError:
        raise EnvironmentBuildError(
            f"{' '.join(command[:2])} did not end in {timeout_s:.0f} seconds",
            hint="look at the build log: does a step wait for an answer, or a server?",
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return process.returncode or 0, lines


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Lines of any length; what a program writes over again is a line, too."""
    rest = ""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while data := await stream.read(_READ_BYTES):
        *whole, rest = re.split(r"\r?\n|\r", rest + decoder.decode(data))
        for line in whole:
            yield line
    if rest:
        yield rest


def _network() -> list[str]:
    """Where the user has steps run without a network of their own, they need that of this machine."""
    return ["--network=host"] if os.environ.get("BUILDAH_ISOLATION") == "chroot" else []


def _plain_http(images: Sequence[str]) -> list[str]:
    """Registries of this machine have no certificates."""
    return ["--tls-verify=false"] if images and all(name.startswith(LOOPBACK) for name in images) else []


def _copy_logins(into: Path) -> None:
    """The logins of podman's or docker's user, for images in other registries."""
    own = os.environ.get("REGISTRY_AUTH_FILE")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    candidates = [
        *([Path(own)] if own else []),
        *([Path(runtime, "containers", "auth.json")] if runtime else []),
        Path.home() / ".config" / "containers" / "auth.json",
        Path.home() / ".docker" / "config.json",
    ]
    for path in candidates:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            auths = json.loads(path.read_text(encoding="utf-8")).get("auths")
            if auths:
                into.write_text(json.dumps({"auths": auths}), encoding="utf-8")
                into.chmod(0o600)
                return


def _copy_docker_settings(folder: Path, host: str) -> None:
    """The settings of docker's user, with plug-ins and contexts, but the login to ``host`` goes into this folder."""
    own = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    settings: dict[str, object] = {}
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((own / "config.json").read_text(encoding="utf-8"))
        settings = found if isinstance(found, dict) else {}
    helpers = settings.get("credHelpers")
    # An empty helper means the file itself, whatever keeps the user's other passwords.
    settings["credHelpers"] = {**(helpers if isinstance(helpers, dict) else {}), host: ""}
    file = folder / "config.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(settings), encoding="utf-8")
    with contextlib.suppress(OSError):
        for path in own.iterdir():
            if path.name != "config.json":
                (folder / path.name).symlink_to(path)


def _last(lines: Sequence[str]) -> str:
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:300] if said else "it says nothing"
