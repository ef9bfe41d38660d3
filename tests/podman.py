"""A podman with a storage of its own."""

import contextlib
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path


@contextlib.contextmanager
def own_podman():
    """The command, as a list; its images and containers go in the end."""
    folder = Path(tempfile.mkdtemp(prefix="sb-"))  # podman wants its name to have less than 50 characters
    storage = [f"--storage-driver={_storage_driver(folder / 'probe')}"]
    if storage == ["--storage-driver=overlay"]:
        storage += ["--storage-opt=overlay.skip_mount_home=true"]  # no mount outlives a run that is killed
    command = [
        "podman",
        f"--root={folder / 'root'}",
        f"--runroot={folder / 'run'}",
        "--runtime=runc",
        *storage,
    ]
    yield command
    for verb in (["rm", "--all", "--force", "--time=0"], ["rmi", "--all", "--force"]):
        subprocess.run([*command, *verb], check=True, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def run_options():
    """What ``podman run`` needs on machines that are containers themselves: no limit may be raised."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    processes = 32_768 if processes == resource.RLIM_INFINITY else min(processes, 32_768)
    return [f"--ulimit=nofile={files}:{files}", f"--ulimit=nproc={processes}:{processes}", "--network=host"]


def _storage_driver(folder):
    """The one that podman takes by itself where ``folder`` is; it leaves traces, so its storage is another one."""
    command = ["podman", f"--root={folder / 'root'}", f"--runroot={folder / 'run'}", "info"]
    command += ["--format={{.Store.GraphDriverName}}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
