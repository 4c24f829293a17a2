"""Keys and roles as operators change them: nothing is lost or half there, however they meet and whenever they die."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bridge import Taken
from gateway import json
from gateway.access import roles
from gateway.access.roles import default_document
from gateway.devstack.nats_server import NatsServer
from gateway.identity import keys
from gateway.identity.keys import ApiKey, FileKeys, decode, encode, new_key
from gateway.operator import files, key_store, role_store
from gateway.operator.bus import Needs, Run, operator_bus
from gateway.operator.files import FileUnavailable
from gateway.settings import Settings
from tests.support.gateway_process import REPOSITORY
from tests.support.nats_session import NatsSession

KILLS = 8
#: Makes keys in the file that it is given, one after the other, and says each that is made.
MAKER = """
import sys
from pathlib import Path
from gateway.identity.keys import ApiKey, new_key
from gateway.operator.key_store import FileStore
store = FileStore(Path(sys.argv[1]))
while True:
    key = ApiKey.of(new_key(), tenant_id="acme", roles=("service",))
    store.add(key)
    print(key.digest, flush=True)
"""


def a_key(tenant: str = "acme") -> ApiKey:
    return ApiKey.of(new_key(), tenant_id=tenant, roles=("service",))


# -- the file --------------------------------------------------------------------------------------------------


def test_a_file_of_keys_is_whole_at_any_moment_and_after_any_death(tmp_path: Path) -> None:
    path = tmp_path / "apikeys.json"
    many = [a_key() for _ in range(1_500)]  # so that most of the time is spent writing
    path.write_bytes(encode({key.digest: key for key in many}))
    known = {key.digest for key in many}
    with read_all_the_time(path):
        for _ in range(KILLS):
            known |= made_until_killed(path)
            found = set(decode(path.read_bytes()))
            assert known <= found, "a key that was shown is lost"
            assert len(found) <= len(known) + 1, "more than the one whose maker was killed"
            known = found
    # Whatever the last one left does not hinder anybody.
    key_store.FileStore(path).add(late := a_key())
    assert late.digest in decode(path.read_bytes())
    assert {one.name for one in tmp_path.iterdir()} == {"apikeys.json", "apikeys.json.lock"}


def made_until_killed(path: Path) -> set[str]:
    maker = subprocess.Popen(
        [sys.executable, "-c", MAKER, str(path)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with maker:
        assert maker.stdout is not None
        said = {maker.stdout.readline().strip()}
        timer = threading.Timer(random.uniform(0.0, 0.1), maker.kill)
        timer.start()
        said |= {line.strip() for line in maker.stdout if line.endswith("\n")}
        timer.join()
    assert "" not in said
    return said


@contextmanager
def read_all_the_time(path: Path) -> Iterator[None]:
    """As a gateway does. Fails if it ever finds anything but keys."""
    source, stop, errors = FileKeys(path), threading.Event(), list[Exception]()

    def read() -> None:
        while not stop.is_set():
            try:
                source.find("0" * 64)
            except Exception as error:
                errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        stop.set()
        reader.join()
    assert errors == []


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "roles.toml"
    path.write_bytes(b"old")
    (tmp_path / "roles.toml.new").mkdir()  # in the way
    with files.locked(path) as real, pytest.raises(FileUnavailable, match="cannot be written"):
        files.replace(real, b"new")
    assert path.read_bytes() == b"old"


def test_a_role_file_that_was_changed_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "roles.toml"
    path.write_bytes(default_document())
    store = role_store.FileStore(path)
    looked_at = store.read()
    path.write_bytes(b"[another]\npermissions = []\n")
    with pytest.raises(role_store.Changed):
        store.replace(b"[mine]\npermissions = []\n", looked_at)
    assert path.read_bytes().startswith(b"[another]")


# -- the buckets -----------------------------------------------------------------------------------------------


@pytest.fixture
def run(nats: NatsServer) -> Iterator[Run]:
    with connected(nats) as run:
        yield run


@contextmanager
def connected(nats: NatsServer) -> Iterator[Run]:
    settings = Settings.from_environ({"NATS_URL": nats.url}, serving=False)
    with operator_bus(settings, Needs(buckets=(keys.BUCKET, roles.BUCKET))) as run:
        yield run


def test_a_key_of_the_same_digest_is_never_overwritten(run: Run) -> None:
    store, key = key_store.BucketStore(run), a_key()
    store.add(key)
    store.add(key)  # one's own write, repeated after a lost connection
    with pytest.raises(Taken):
        store.add(replace(key, tenant_id="umbrella"))
    [kept] = [one for one in store.read().keys if one.digest == key.digest]
    assert kept.tenant_id == "acme"


def test_the_first_revocation_counts(run: Run) -> None:
    store, key = key_store.BucketStore(run), a_key()
    store.add(key)
    first = datetime.now(UTC)
    store.revoke(key, first)
    store.revoke(key, first + timedelta(hours=1))
    [kept] = [one for one in store.read().keys if one.digest == key.digest]
    assert kept.revoked_at == first


def test_what_another_operator_changed_survives_a_revocation(run: Run, nats: NatsServer) -> None:
    store, key = key_store.BucketStore(run), a_key()
    store.add(key)
    renamed = replace(key, name="by another operator")
    with NatsSession(nats.url) as session:
        entry = json.dumps(renamed.as_json())
        session.call(session.jetstream.publish(f"$KV.{keys.BUCKET}.{key.digest}", entry))
    store.revoke(key, datetime.now(UTC))
    [kept] = [one for one in store.read().keys if one.digest == key.digest]
    assert (kept.name, kept.state(datetime.now(UTC))) == ("by another operator", "revoked")


def test_a_key_that_is_gone_cannot_be_revoked(run: Run) -> None:
    with pytest.raises(key_store.Gone):
        key_store.BucketStore(run).revoke(a_key(), datetime.now(UTC))


def test_of_two_operators_who_looked_at_the_same_roles_one_has_to_look_again(
    run: Run, nats: NatsServer
) -> None:
    mine, others = b"[mine]\npermissions = []\n", b"[other]\npermissions = []\n"
    with connected(nats) as another:
        stores = role_store.BucketStore(run), role_store.BucketStore(another)
        looked_at = [store.read() for store in stores]
        stores[1].replace(others, looked_at[1])
        with pytest.raises(role_store.Changed):
            stores[0].replace(mine, looked_at[0])
        # What is in force is what one wants: somebody was first with the same, or one's own write was repeated.
        stores[0].replace(others, looked_at[0])
        assert stores[0].read().document == others
        stores[0].replace(mine, stores[0].read())
        assert stores[1].read().document == mine


def test_a_bucket_that_forgets_is_mended_by_operators() -> None:
    with NatsServer(name="forgetful") as nats, NatsSession(nats.url) as session:
        session.call(session.jetstream.create_key_value(bucket=keys.BUCKET, ttl=60))
        with connected(nats):
            config = session.stream_info(f"KV_{keys.BUCKET}").config
        assert not config.max_age
