"""A simulated AWS account that `starburst setup` has prepared, for tests of everything above it."""

import psutil
import pytest

import starburst
from starburst.aws import capacity_provider
from starburst.testing.aws import SimulatedAws

IMAGE = "starburst-worker:under-test"  # tasks that are processes need no image


class Cloud:
    """One account with one region that is set up; its settings are in a folder of their own."""

    def __init__(self, folder, **options):
        self.aws = SimulatedAws(folder=str(folder / "aws"), **options)
        self.config_dir = folder / "config"
        self.bucket = f"starburst-{self.aws.options.account}-{self.aws.options.region}"

    @property
    def url(self):
        """The store that sessions are in."""
        return f"s3://{self.bucket}"

    def start(self, **setup):
        """Start it and set it up."""
        with pytest.MonkeyPatch.context() as patch:
            # A test finds, and kills, its own processes by this variable.
            patch.delenv("STARBURST_DATA_DIR", raising=False)
            patch.setattr(capacity_provider, "_SETTLED_S", 0.0)  # nobody else is at work
            self.aws.start()
            self.use(patch)
            starburst.setup(**{"image": IMAGE, **setup})
        return self

    def use(self, monkeypatch, launch_type=None):
        """Let this process, and those that it starts, use the account."""
        for name, value in self.aws.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("STARBURST_CONFIG_DIR", str(self.config_dir))
        if launch_type is not None:
            monkeypatch.setenv("STARBURST_LAUNCH_TYPE", launch_type)

    def alive(self):
        """Tasks that have not ended."""
        return [task for task in self.aws.tasks() if task.last_status != "STOPPED"]

    def processes(self):
        """The processes of tasks that run, each with all that it started."""
        found = []
        for task in self.alive():
            try:
                first = psutil.Process(task.pid) if task.pid else None
                found += [first, *first.children(recursive=True)] if first else []
            except psutil.NoSuchProcess:
                continue
        return found

    def clean(self):
        """End all tasks, and clear what was made to fail."""
        self.aws.clear()
        for task in self.alive():
            self.aws.kill(task.task_id)
