"""The stack as one, on a throw-away state directory with a real broker and a real database."""

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import asyncpg
import psutil
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from stream.local.addresses import read_stack_env
from stream.local.stack import Stack, running_stack

pytestmark = pytest.mark.integration

FAKE_CALIBRATOR = (sys.executable, str(Path(__file__).with_name("fake_calibrator.py")))


@pytest.fixture(scope="module")
def stack():
    with running_stack(calibrator_command=FAKE_CALIBRATOR) as running:
        yield running


def states(stack):
    return {part.name: part.state for part in stack.status()}


def sql(stack, statement):
    async def run():
        connection = await asyncpg.connect(stack.addresses.database_url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def end_offset(stack, topic):
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": stack.addresses.kafka_broker, "group.id": "reader"})
    try:
        return consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)[1]
    finally:
        consumer.close()


def test_all_parts_run_and_their_addresses_are_in_the_env_file(stack):
    assert states(stack) == {"kafka": "running", "postgres": "running", "calibrator": "running"}
    assert read_stack_env(stack.state_dir) == {
        "KAFKA_BROKER": stack.addresses.kafka_broker,
        "DATABASE_URL": stack.addresses.database_url,
        "R_IRT_BASE_URL": stack.addresses.r_irt_base_url,
        "R_IRT_INTERNAL_TOKEN": stack.addresses.r_irt_internal_token,
        "THETASTREAM_URL": stack.addresses.thetastream_url,
    }
    # It holds a password and a token.
    assert stat.S_IMODE(stack.env_file.stat().st_mode) == 0o600


def test_the_database_is_postgresql_18_and_asks_for_its_password(stack):
    assert str(sql(stack, "show server_version")).startswith("18")
    assert sql(stack, "select current_database()") == "thetastream"
    host_part = stack.addresses.database_url.rpartition("@")[2]
    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(asyncpg.connect(f"postgresql://thetastream:wrong@{host_part}"))


def test_up_again_starts_nothing_new(stack):
    before = {part.name: part.pid for part in stack.status()}
    again = Stack(stack.state_dir, env={}, calibrator_command=FAKE_CALIBRATOR)
    assert again.up() == stack.addresses
    assert {part.name: part.pid for part in again.status()} == before


def test_our_own_addresses_in_the_environment_are_not_taken_for_external(stack):
    sourced = Stack(
        stack.state_dir,
        env=stack.addresses.environment(),
        calibrator_command=FAKE_CALIBRATOR,
    )
    assert sourced.external == {}
    assert set(states(sourced).values()) == {"running"}


def test_data_survives_killed_servers_and_the_next_up_repairs_the_stack(stack):
    admin = AdminClient({"bootstrap.servers": stack.addresses.kafka_broker})
    admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(10)
    producer = Producer({"bootstrap.servers": stack.addresses.kafka_broker, "acks": "all"})
    for number in range(100):
        producer.produce("kept", str(number))
    assert producer.flush(10) == 0
    sql(stack, "create table kept as select generate_series(1, 1000) as n")
    addresses = stack.addresses

    stack.kafka.kill()
    stack.postgres.kill()
    stack.calibrator.kill()
    assert set(states(stack).values()) == {"stopped"}
    assert "was killed" in stack.status()[0].detail
    # As if the pid that the crash left behind were somebody else's by now.
    left = stack.postgres.data / "postmaster.pid"
    left.write_text(left.read_text().replace(left.read_text().split()[0], str(os.getpid()), 1))

    assert stack.up() == addresses
    assert end_offset(stack, "kept") == 100
    assert sql(stack, "select count(*) from kept") == 1000


def test_one_part_restarts_alone_at_the_same_address(stack):
    address, others = stack.addresses.kafka_broker, stack.postgres.process()
    before = stack.kafka.process()
    stack.kafka.restart()
    assert stack.kafka.process() != before
    assert stack.addresses.kafka_broker == address
    assert stack.postgres.process() == others


def test_a_server_whose_record_was_lost_is_found_and_not_started_twice(stack):
    before = {part.name: part.pid for part in stack.status()}
    stack.kafka.record.unlink()
    stack.postgres.record.unlink()
    assert {part.name: part.pid for part in stack.status()} == before
    stack.up()
    assert {part.name: part.pid for part in stack.status()} == before


def test_a_copied_state_directory_does_not_speak_of_the_originals_processes(stack, tmp_path):
    copy = tmp_path / "copy"
    for part in ("kafka", "postgres", "calibrator"):
        (copy / part).mkdir(parents=True)
        shutil.copy(stack.state_dir / part / "ports.json", copy / part)
    for part in stack.services.values():
        if part.record.exists():
            shutil.copy(part.record, copy / part.name)
    copied = Stack(copy, env={}, calibrator_command=FAKE_CALIBRATOR)
    assert copied.down() == []
    assert set(states(stack).values()) == {"running"}


def test_the_broker_takes_a_2_mib_message_and_makes_no_topic_by_itself(stack):
    admin = AdminClient({"bootstrap.servers": stack.addresses.kafka_broker})
    admin.create_topics([NewTopic("large", 1, 1)])["large"].result(10)
    producer = Producer(
        {
            "bootstrap.servers": stack.addresses.kafka_broker,
            "message.max.bytes": 3 * 1024 * 1024,
        }
    )
    outcomes = []
    producer.produce("large", b"x" * 2 * 1024 * 1024, callback=lambda err, _: outcomes.append(err))
    assert producer.flush(10) == 0
    assert outcomes == [None]
    admin.list_topics("never-made", timeout=5)
    assert "never-made" not in admin.list_topics(timeout=5).topics


def test_a_taken_port_is_replaced_and_down_leaves_nothing_running():
    with running_stack(parts=("postgres",)) as stack:
        first = stack.postgres.ports["port"]
        assert stack.down() == ["postgres"]
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            thief.bind(("127.0.0.1", first))
            thief.listen()
            stack.up()
            assert stack.postgres.ports["port"] != first
            assert sql(stack, "select 1") == 1
            assert str(stack.postgres.ports["port"]) in stack.env_file.read_text()
        server = stack.postgres.process()
        family = [server, *server.children(recursive=True)]
        assert len(family) > 1
        assert stack.down() == ["postgres"]
        assert not any(one.is_running() for one in family)
        assert stack.down() == []
        assert states(stack) == {"postgres": "stopped"}


def test_external_addresses_are_used_as_given_and_nothing_is_started(tmp_path):
    with socket.socket() as mine:
        mine.bind(("127.0.0.1", 0))
        mine.listen()
        broker = f"127.0.0.1:{mine.getsockname()[1]}"
        env = {
            "KAFKA_BROKER": broker,
            "DATABASE_URL": "postgresql://me:secret@127.0.0.1:1/x",
            "R_IRT_BASE_URL": "http://127.0.0.1:1",
            "R_IRT_INTERNAL_TOKEN": "mine",
            "THETASTREAM_URL": "http://127.0.0.1:2",
        }
        stack = Stack(tmp_path, env=env)
        stack.up()
        assert read_stack_env(tmp_path) == env
        assert states(stack) == {
            "kafka": "external",
            "postgres": "unreachable",
            "calibrator": "unreachable",
        }
        assert "secret" not in repr(stack.status())
        assert stack.down() == []


def test_a_part_that_cannot_start_ends_what_was_started_and_shows_its_log(tmp_path):
    stack = Stack(
        tmp_path,
        env={},
        parts=("postgres", "calibrator"),
        calibrator_command=(sys.executable, "-c", "print('no such model'); raise SystemExit(4)"),
    )
    tmp_path.chmod(0o711)
    with pytest.raises(Exception, match=r"calibrator ended while starting[\s\S]*no such model"):
        stack.up()
    assert states(stack) == {"postgres": "stopped", "calibrator": "stopped"}


def script_that_starts(state_dir):
    return textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        from stream.local.stack import Stack
        stack = Stack(
            Path({str(state_dir)!r}), env={{}}, parts=("postgres", "calibrator"),
            calibrator_command=(sys.executable, "-c", "import time; time.sleep(600)"),
        )
        stack.up(lambda part, what: print(part, what, flush=True))
        """
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_start_that_is_broken_off_leaves_nothing_running(tmp_path, how):
    # Its calibrator never answers, so that the start surely hangs when the signal comes.
    starter = subprocess.Popen(
        [sys.executable, "-c", script_that_starts(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
        # A shell that runs the tests in the background leaves SIGINT ignored, also in children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert starter.stdout is not None
    for line in starter.stdout:
        if line.startswith("postgres answers"):
            break
    else:
        pytest.fail("the database never came up")
    stack = Stack(tmp_path, env={}, parts=("postgres", "calibrator"))
    servers = [stack.postgres.process(), stack.calibrator.process()]
    assert all(server is not None for server in servers)
    starter.send_signal(how)
    # Up to 35 s when both servers take their whole grace; less than the calibrator's 60 s.
    told, _ = starter.communicate(timeout=50)
    assert "postgres ending again" in told
    assert starter.returncode == (-signal.SIGINT if how == signal.SIGINT else 128 + how)
    assert not any(server.is_running() for server in servers)


def test_two_starts_at_once_make_one_stack(tmp_path):
    starters = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from pathlib import Path; from stream.local.stack import Stack; "
                f"Stack(Path({str(tmp_path)!r}), env={{}}, parts=('postgres',)).up()",
            ],
            cwd=Path(__file__).parents[2],
        )
        for _ in range(2)
    ]
    assert [starter.wait(60) for starter in starters] == [0, 0]
    stack = Stack(tmp_path, env={}, parts=("postgres",))
    try:
        serving = [
            one.pid
            for one in psutil.process_iter(["cmdline"])
            if str(stack.postgres.data) in (one.info["cmdline"] or [])
        ]
        assert serving == [stack.postgres.process().pid]
    finally:
        stack.down()


def test_a_reused_pid_is_not_ended(tmp_path):
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        stack = Stack(tmp_path, env={}, parts=("postgres",))
        stack.postgres.home.mkdir()
        # The pid is the bystander's now, but the record speaks of an hour ago.
        stack.postgres.record.write_text(
            f'{{"pid": {bystander.pid}, "started": {time.time() - 3600}, '
            f'"home": "{stack.postgres.home}"}}'
        )
        assert stack.down() == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
