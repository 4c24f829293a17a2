"""Who may do what: every endpoint and every kind of caller in one table, and what a denial costs."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from tests.support.access_credentials import (
    DEFAULT_ROLES,
    KEY_LOOKUPS,
    ROLE_LOOKUPS,
    bearer,
    nobodys_key,
    put_roles,
    roles_document,
)
from tests.support.access_routes import routes
from tests.support.access_stack import Guarded, bare_workers, running_guarded
from tests.support.documents import (
    ack_body,
    assignment_body,
    decide_body,
    new_id,
    usage_body,
)
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Answer, Client
from tests.support.nats_tap import NatsTap
from tests.support.scraping import scrape_of
from tests.support.wire import check_error_body

CALLERS: Final = {
    "adm": "a key of the role admin",
    "ope": "a key of the role operator",
    "ser": "a key of the role service",
    "vie": "a key of the role viewer",
    "unk": "a key of a role that nobody defined",
    "emp": "a key without a role",
    "mal": "a token whose claim roles is malformed",
    "brk": "a key whose record is malformed",
    "bad": "a key that nobody made",
    "non": "no credentials",
    "exp": "a key that has expired",
    "rev": "a key that was revoked",
    "oth": "an administrator's key, and the header X-Tenant-ID of another tenant",
    "out": "an administrator's key of a tenant that is not served",
}

#: 401: nobody knows who that is. 403: it may not. 503: it cannot be told. 404: allowed, and nothing is there.
MATRIX: Final = """
endpoint                                      permission        adm ope ser vie unk emp mal brk bad non exp rev oth out
POST /api/v1/routes/decide                    routes:decide     200 200 200 403 403 403 401 503 401 401 401 401 403 403
POST /api/v1/assignments                      assignments:write 202 202 202 403 403 403 401 503 401 401 401 401 403 403
POST /api/v1/acks                             acks:write        202 202 202 403 403 403 401 503 401 401 401 401 403 403
POST /api/v1/usage                            usage:write       202 403 202 403 403 403 401 503 401 401 401 401 403 403
POST /api/v1/usage/batch                      usage:write       200 403 200 403 403 403 401 503 401 401 401 401 403 403
GET  /api/v1/results                          results:read      404 404 404 404 403 403 401 503 401 401 401 401 403 403
GET  /api/v1/results/<path:assignment_id>     results:read      404 404 404 404 403 403 401 503 401 401 401 401 403 403
GET  /api/v1/results/stream                   results:read      200 200 200 200 403 403 401 503 401 401 401 401 403 403
GET  /api/v1/operations/<operation>           operations:read   404 404 404 404 403 403 401 503 401 401 401 401 403 403
GET  /api/v1/operations/<operation>/<path:id> operations:read   404 404 404 404 403 403 401 503 401 401 401 401 403 403
GET  /status                                  status:read       200 200 403 200 403 403 401 503 401 401 401 401 403 403
GET  /status/assets/<name>                    status:read       200 200 403 200 403 403 401 503 401 401 401 401 403 403
GET  /livez                                   -                 200 200 200 200 200 200 200 200 200 200 200 200 200 200
GET  /readyz                                  -                 200 200 200 200 200 200 200 200 200 200 200 200 200 200
GET  /health                                  -                 200 200 200 200 200 200 200 200 200 200 200 200 200 200
GET  /_health                                 -                 200 200 200 200 200 200 200 200 200 200 200 200 200 200
GET  /metrics                                 -                 200 200 200 200 200 200 200 200 200 200 200 200 200 200
GET  /openapi.json                            -                 200 200 200 200 200 200 200 200 200 200 200 200 200 200
GET  /docs/                                   -                 200 200 200 200 200 200 200 200 200 200 200 200 200 200
GET  /docs/<path:path>                        -                 200 200 200 200 200 200 200 200 200 200 200 200 200 200
"""
CODES: Final = {401: "unauthorized", 403: "denied", 503: "access_unavailable", 404: "not_found"}

#: What the tables above leave open: the path, and a body without the tenant, which is the caller's.
PATHS: Final[Mapping[str, Callable[[], str]]] = {
    "/api/v1/results": lambda: f"/api/v1/results?assignment_id={new_id('as')}",
    "/api/v1/results/<path:assignment_id>": lambda: f"/api/v1/results/{new_id('as')}",
    "/api/v1/results/stream": lambda: (
        f"/api/v1/results/stream?assignment_id={new_id('as')}&close_after_ms=100"
    ),
    "/api/v1/operations/<operation>": lambda: f"/api/v1/operations/usage?id={new_id('us')}",
    "/api/v1/operations/<operation>/<path:id>": lambda: f"/api/v1/operations/acks/{new_id('ack')}",
    "/status/assets/<name>": lambda: "/status/assets/status.css",
    "/docs/<path:path>": lambda: "/docs/swagger-ui.css",
}
BODIES: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {
    "/api/v1/routes/decide": decide_body,
    "/api/v1/assignments": assignment_body,
    "/api/v1/acks": ack_body,
    "/api/v1/usage": usage_body,
    "/api/v1/usage/batch": lambda: {"events": [_without_tenant(usage_body())]},
}


@dataclass(frozen=True)
class Row:
    """One endpoint."""

    method: str
    rule: str
    permission: str
    statuses: Mapping[str, int]

    @property
    def is_open(self) -> bool:
        return self.permission == "-"

    def ask(self, client: Client, headers: Mapping[str, str], method: str | None = None) -> Answer:
        path = PATHS.get(self.rule, lambda: self.rule)()
        if self.method == "POST":
            return client.post(path, _without_tenant(BODIES[self.rule]()), headers)
        return client.request(method or self.method, path, headers=headers)


def _without_tenant(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "tenant_id"}


def rows() -> list[Row]:
    header, *lines = (line.split() for line in MATRIX.strip().splitlines())
    assert header[2:] == list(CALLERS)
    return [
        Row(method, rule, permission, dict(zip(CALLERS, map(int, cells), strict=True)))
        for method, rule, permission, *cells in lines
    ]


ROWS: Final = rows()
GUARDED_ROWS: Final = [row for row in ROWS if not row.is_open]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Shared by the tests here: they make keys of their own."""
    settings = {
        "GATEWAY_TENANT_ALLOWLIST": "acme,umbrella",
        # What is looked up once is looked up once in the whole of a test.
        "RBAC_CACHE_TTL_MS": "600000",
        "RBAC_DENY_TTL_MS": "600000",
    }
    with running_guarded("rbac", tmp_path_factory.mktemp("rbac"), settings) as started:
        yield started


class Callers:
    """A credential of every kind; ``viewer`` is the role that may only look."""

    def __init__(
        self, guarded: Guarded, *, viewer: str = "viewer", unknown: str = "janitor"
    ) -> None:
        keys, past = guarded.keys, datetime.now(UTC) - timedelta(seconds=1)
        self._guarded = guarded
        broken = keys.make("acme", "admin")
        keys.put(broken, b'{"roles": ["admin", "*"]}')
        self.headers: dict[str, dict[str, str]] = {
            "adm": bearer(keys.make("acme", "admin")),
            "ope": bearer(keys.make("acme", "operator")),
            "ser": bearer(keys.make("acme", "service")),
            "vie": bearer(keys.make("acme", viewer)),
            "unk": bearer(keys.make("acme", unknown)),
            "emp": bearer(keys.make("acme")),
            "mal": bearer(guarded.signing.token(roles=["admin", "*"])),
            "brk": bearer(broken),
            "bad": bearer(nobodys_key()),
            "non": {},
            "exp": bearer(keys.make("acme", "admin", expires_at=past)),
            "rev": bearer(keys.make("acme", "admin", revoked=True)),
            "oth": {**bearer(keys.make("acme", "admin")), "X-Tenant-ID": "umbrella"},
            "out": bearer(keys.make("outsider", "admin")),
        }

    def gateway(self, caller: str) -> GatewayProcess:
        return self._guarded.by_token if caller == "mal" else self._guarded.gateway


@pytest.fixture(scope="module")
def callers(guarded: Guarded) -> Callers:
    return Callers(guarded)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.rule}")
def test_the_table_is_what_the_gateway_does(row: Row, callers: Callers) -> None:
    found = {}
    for caller in CALLERS:
        with callers.gateway(caller).client(callers.headers[caller]) as client:
            answer = row.ask(client, {})
            found[caller] = answer.status
            if answer.status in CODES:
                assert answer.code == CODES[answer.status], answer
                known = caller not in ("mal", "brk", "bad", "non", "exp", "rev")
                tenant = "outsider" if caller == "out" else "acme"
                check_error_body(answer, tenant=tenant if known else None)
            if answer.status == 401:
                assert "Bearer realm=" in (answer.header("WWW-Authenticate") or ""), answer
                assert answer.json()["context"]["tenant_id"] is None
            if row.method == "GET":
                assert row.ask(client, {}, "HEAD").status == answer.status
    assert found == row.statuses


def test_a_browser_shows_its_key_as_a_password_where_a_person_looks(
    guarded: Guarded, callers: Callers
) -> None:
    """HTTP Basic is for the status page; whatever the user name says, the password decides."""
    for caller, key in callers.headers.items():
        credential = key.get("Authorization", "").removeprefix("Bearer ")
        basic = {"Authorization": f"Basic {b64encode(f'admin:{credential}'.encode()).decode()}"}
        with callers.gateway(caller).client({**key, **basic}) as client:
            for row in GUARDED_ROWS:
                answer = row.ask(client, {})
                takes_basic = row.rule.startswith("/status")
                assert answer.status == (row.statuses[caller] if takes_basic else 401), answer
                if answer.status == 401:
                    offered = answer.header("WWW-Authenticate") or ""
                    assert offered.startswith("Basic ") == takes_basic, answer


def test_the_table_holds_every_endpoint_that_there_is() -> None:
    assert {(row.method, row.rule, row.permission) for row in ROWS} == routes()


@pytest.mark.parametrize(
    "method", ["OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "get"]
)
def test_no_other_method_leads_in(method: str, guarded: Guarded) -> None:
    with guarded.gateway.client(headers={}) as client:
        for row in GUARDED_ROWS:
            path = PATHS.get(row.rule, lambda row=row: row.rule)()
            answer = client.request(method, path)
            assert answer.status in (400, 405), (row, answer)


def test_what_is_denied_is_looked_up_once_and_leaves_no_trace_in_nats(guarded: Guarded) -> None:
    """Each worker asks each thing once: who that is by the key, and whether its roles may do this."""
    looker = roles_document({"looker": ["results:read", "operations:read", "status:read"]})
    put_roles(guarded.session, DEFAULT_ROLES + b"\n" + looker)
    callers = Callers(guarded, viewer="looker", unknown="nobody")
    denied = {
        caller: [row for row in GUARDED_ROWS if row.statuses[caller] in (401, 403)]
        for caller in ("vie", "unk", "emp", "bad", "non", "exp", "rev", "oth", "out")
    }
    before = scrape_of(guarded.gateway)
    rounds = 3
    with NatsTap(guarded.nats.url, internals=True) as tap, bare_workers(guarded.gateway) as workers:
        for _ in range(rounds):
            for client in workers:
                for caller, refused in denied.items():
                    for row in refused:
                        answer = row.ask(client, callers.headers[caller])
                        assert answer.status == row.statuses[caller], (caller, row, answer)
        tap.settle()
        looked_up = {subject: len(tap.messages(subject)) for subject in (KEY_LOOKUPS, ROLE_LOOKUPS)}
        others = [m for m in tap.messages() if not m.subject.startswith(("$JS.", "_INBOX."))]
    after = scrape_of(guarded.gateway)

    asked = {caller: {row.permission for row in denied[caller]} for caller in ("vie", "unk")}
    questions = sum(map(len, asked.values()))
    assert looked_up == {
        KEY_LOOKUPS: len(workers) * len(denied.keys() - {"non"}),
        ROLE_LOOKUPS: len(workers) * questions,
    }
    assert [m.subject for m in others] == [], "a message or a record"

    def rise(**labels: str) -> float:
        name = "beamline_gateway_rbac_decisions_total"
        return after.total(name, **labels) - before.total(name, **labels)

    total = rounds * len(workers) * sum(len(denied[caller]) for caller in asked)
    assert rise(decision="deny", cache="miss") == len(workers) * questions
    assert rise(decision="deny", cache="hit") == total - len(workers) * questions
    assert rise(decision="deny", cache="none") == rounds * len(workers) * len(denied["emp"])
    assert rise(decision="allow") == rise(decision="error") == 0
