"""An S3 server (SeaweedFS, from a wheel) with one bucket owner, on loopback."""

import json
import os
import secrets
import shutil
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from nightbatch.demo.services.ports import LOOPBACK, PortTaken, ReservedPort, start_on_free_ports
from nightbatch.demo.services.process import Command, ServiceFailed, ServiceProcess
from nightbatch.demo.services.waiting import WaitedTooLong, wait_until

REGION = "us-east-1"
USER = "nightbatch"
START_S = 40.0

PORTS = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc")
"""Ports it cannot do without, as its flags call them (`-master.port`, `-master.port.grpc`, ...)."""

ONE_VOLUME_A_BUCKET = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
"""By default a bucket takes seven volumes, and the disk's last volume is given away at its seventieth bucket."""


@dataclass(frozen=True)
class S3Credentials:
    """An access key and its secret."""

    key: str
    secret: str


class S3Server:
    """A running S3 server; stop it with `stop()`."""

    def __init__(self, process: ServiceProcess, *, ports: list[int], credentials: S3Credentials) -> None:
        self.process, self.ports = process, ports
        self.key, self.secret = credentials.key, credentials.secret
        self.region = REGION
        self.endpoint = f"http://{LOOPBACK}:{ports[PORTS.index('s3')]}"
        self._kept: list[ReservedPort] = []

    @classmethod
    def start(cls, folder: Path, *, on_progress: Callable[[str], None] = lambda text: None) -> "S3Server":
        """
        Start a server whose objects are in `folder`; takes 2 to 3 s.

        Raises:
            ServiceFailed: When the server ends instead of coming up.
        """
        folder = folder.resolve()
        (folder / "objects").mkdir(parents=True, exist_ok=True)
        credentials = _credentials(folder / "identities.json")
        on_progress("starting the server")
        return start_on_free_ports(len(PORTS), lambda ports: _start(folder, ports, credentials))

    def client(self) -> Any:
        """Open a boto3 client."""
        return self._client(attempts=4)

    def create_bucket(self, name: str) -> str:
        """Create a bucket unless it exists, and return its name."""
        client = self.client()
        if name not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=name)
        return name

    def airflow_connection(self) -> str:
        """Give the value of an `AIRFLOW_CONN_*` variable."""
        extra = {"endpoint_url": self.endpoint, "region_name": self.region}
        connection = {"conn_type": "aws", "login": self.key, "password": self.secret, "extra": extra}
        return json.dumps(connection)

    def answers(self) -> bool:
        """Tell whether the server knows our key, which no other server on this port would, and its objects."""
        from botocore.exceptions import BotoCoreError, ClientError

        self.process.check()
        if not self._knows_its_volumes():
            return False
        try:
            self._client(attempts=1).list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True

    def go_away(self) -> None:
        """End the server and keep its ports for `start_again`: who connects is refused meanwhile."""
        self.process.stop()
        self._kept = [ReservedPort(port) for port in self.ports]

    def start_again(self) -> None:
        """Start a server that has ended on the same data and ports."""
        folder = self.process.folder.parent
        self.process = _start(folder, self.ports, S3Credentials(self.key, self.secret)).process
        for port in self._kept:
            port.release()

    def stop(self) -> None:
        """End the server."""
        self.process.stop()

    def _knows_its_volumes(self) -> bool:
        """Ask the master for what is on the disk: it may hear of that seconds after S3 answers."""
        master = f"http://{LOOPBACK}:{self.ports[PORTS.index('master')]}"
        try:
            topology = httpx.get(f"{master}/dir/status", timeout=5, trust_env=False).json()["Topology"]
        except (httpx.TransportError, ValueError, KeyError):
            return False
        racks = [rack for center in topology["DataCenters"] or [] for rack in center["Racks"] or []]
        nodes = [node for rack in racks for node in rack["DataNodes"] or []]
        stored = sum(1 for _ in (self.process.folder.parent / "objects").glob("*.dat"))
        return bool(nodes) and sum(node["Volumes"] for node in nodes) >= stored

    def _client(self, *, attempts: int) -> Any:
        import boto3  # 0.6 CPU seconds
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name=self.region,
            config=Config(retries={"total_max_attempts": attempts}, connect_timeout=5, read_timeout=30, proxies={}),
        )


def _credentials(file: Path) -> S3Credentials:
    """Read the credentials from the server's own file, or make some up; only its owner may read it."""
    if not file.exists():
        pair = {"accessKey": USER, "secretKey": secrets.token_hex(20)}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": USER, "credentials": [pair], "actions": actions}
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            json.dump({"identities": [identity]}, new)
    pair = json.loads(file.read_text())["identities"][0]["credentials"][0]
    return S3Credentials(key=pair["accessKey"], secret=pair["secretKey"])


def _start(folder: Path, ports: list[int], credentials: S3Credentials) -> S3Server:
    # The master (m + its port) remembers where its peers were, and would look for them at the old ports. All
    # else it learns from the volumes; and without a past it needs no election, 10 s long after a crash.
    for memory in (folder / "objects").glob("m[0-9]*"):
        shutil.rmtree(memory)
    # Its clean end takes many seconds; its files survive a kill.
    command = Command(
        name="seaweedfs",
        argv=_argv(folder, ports),
        env={**os.environ, **ONE_VOLUME_A_BUCKET},
        grace_s=0.5,
        leaves_behind=_sockets(ports),
    )
    process = ServiceProcess.start(command, folder / "run")
    server = S3Server(process, ports=ports, credentials=credentials)
    try:
        wait_until(server.answers, what="S3 to answer", timeout_s=START_S)
    except (ServiceFailed, WaitedTooLong) as error:
        server.stop()
        if "address already in use" in process.log_tail(lines=200):
            raise PortTaken("S3") from error
        raise
    return server


def _argv(folder: Path, ports: list[int]) -> list[str]:
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    argv = [str(weed), "-logtostderr=true", "server", f"-dir={folder / 'objects'}"]
    # Alone, it need not look for other masters, nor give clients time to find another volume server.
    argv += ["-master.peers=none", "-master.electionTimeout=1s", "-volume.preStopSeconds=0", "-master.telemetry=false"]
    argv += [f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}", "-volume.max=0", "-master.volumeSizeLimitMB=128"]
    argv += ["-filer", "-s3", f"-s3.config={folder / 'identities.json'}", "-s3.iam=false"]
    argv += ["-s3.port.lance=0", "-s3.port.iceberg=0"]
    for name, port in zip(PORTS, ports, strict=True):
        component, _, kind = name.partition(".")
        argv.append(f"-{component}.port{'.' * bool(kind)}{kind}={port}")
    return argv


def _sockets(ports: list[int]) -> list[Path]:
    """Name the sockets that the server makes where nobody asked for them, and forgets."""
    named = zip(PORTS, ports, strict=True)
    return [Path(f"/tmp/seaweedfs-{name.replace('.', '-')}-{port}.sock") for name, port in named]  # noqa: S108 - its choice
