"""A podman with a storage of its own, for tests in real containers."""

import contextlib
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path


@contextlib.contextmanager
def own_podman():
    """The command with its global options; afterwards its containers, images and folder are removed."""
    folder = Path(tempfile.mkdtemp(prefix="sb-"))  # podman wants a name of less than 50 characters
    command = ["podman", f"--root={folder / 'root'}", f"--runroot={folder / 'run'}", "--runtime=runc"]
    driver = _storage_driver(folder / "probe")
    command.append(f"--storage-driver={driver}")
    if driver == "overlay":
        command.append("--storage-opt=overlay.skip_mount_home=true")  # no mount outlives a run that is killed
    try:
        yield command
    finally:
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
