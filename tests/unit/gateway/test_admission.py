"""Admission: who may do this now, and how long what stays open may go on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from prometheus_client import REGISTRY
from werkzeug.datastructures import Headers

from gateway.access import Allowlists, Authoriser, Permission
from gateway.access.roles import Roles
from gateway.admission import Admission, Standing
from gateway.errors import GatewayError
from gateway.identity import ApiKeyAuthenticator, Principal
from gateway.identity.keys import ApiKey, new_key
from gateway.sources import SourceUnavailable
from tests.support.waiting import GENEROUS_SECONDS, wait_until

KEY: Final = new_key()
TTL_SECONDS: Final = 0.4
LONGER_TTL_SECONDS: Final = 0.8
READ: Final = Permission.RESULTS_READ


class House:
    """Keys and roles as operators change them, and the admission that looks them up."""

    def __init__(self, *, ttl: float = TTL_SECONDS, tenants: tuple[str, ...] = ()) -> None:
        self.key = ApiKey.of(KEY, tenant_id="acme", roles=("viewer",))
        self.granted: Roles = {"viewer": frozenset({READ})}
        self.down = False
        self.lookups = 0
        self.admission = Admission(
            ApiKeyAuthenticator(self, ttl_seconds=ttl, deny_ttl_seconds=ttl),
            Authoriser(self, ttl_seconds=ttl, deny_ttl_seconds=ttl),
            Allowlists.of(tenants, ()),
        )

    def find(self, digest: str) -> ApiKey | None:
        self._asked()
        return self.key if digest == self.key.digest else None

    def roles(self) -> Roles:
        self._asked()
        return self.granted

    def _asked(self) -> None:
        self.lookups += 1
        if self.down:
            raise SourceUnavailable("down")

    def admit(
        self, permission: Permission | None = READ, more: Mapping[str, str] | None = None
    ) -> Principal:
        headers = Headers({"Authorization": f"Bearer {KEY}", **(more or {})})
        principal = self.admission.identify(headers, "203.0.113.9", soon())
        return self.admission.admit(principal, headers, permission, soon())

    def standing(self) -> Standing:
        """Of somebody who has just been admitted."""
        headers = Headers({"Authorization": f"Bearer {KEY}"})
        return Standing(self.admission, self.admit(), headers, "203.0.113.9", READ)


def soon() -> float:
    return time.monotonic() + GENEROUS_SECONDS


def refused(house: House, permission: Permission | None = READ, **headers: str) -> tuple[int, str]:
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    with pytest.raises(GatewayError) as caught:
        house.admit(permission, more)
    return caught.value.status, caught.value.code


def may_go_on(standing: Standing) -> bool:
    try:
        standing.check()
    except GatewayError:
        return False
    return True


# -- admitted -----------------------------------------------------------------------------------------


def test_who_has_the_permission_is_admitted() -> None:
    assert House().admit().tenant_id == "acme"


def test_what_was_found_is_good_until_its_first_part_is_over() -> None:
    house = House(ttl=60)
    before = time.monotonic()
    principal = house.admit()
    first = principal.good_until
    assert before + 60 <= first <= time.monotonic() + 60
    assert house.admit().good_until == first, "asked again, it is no longer good for that"


def test_a_view_that_names_no_permission_is_for_nobody() -> None:
    house = House()
    assert refused(house, None) == (403, "denied")


@pytest.mark.parametrize("roles", [(), ("janitor",), ("Viewer",), ("viewer ",), ("*",), ("",)])
def test_without_the_role_nobody_is_admitted(roles: tuple[str, ...]) -> None:
    house = House()
    house.key = replace(house.key, roles=roles)
    assert refused(house) == (403, "denied")


def test_one_role_of_several_is_enough() -> None:
    house = House()
    house.key = replace(house.key, roles=("janitor", "viewer"))
    assert house.admit().roles == ("janitor", "viewer")


def test_of_very_many_roles_only_the_first_count() -> None:
    house = House()
    house.key = replace(house.key, roles=(*(f"role-{number}" for number in range(32)), "viewer"))
    assert refused(house) == (403, "denied")


@pytest.mark.parametrize("named", ["umbrella", "ACME", "acme,acme", "acme ", ""])
def test_another_tenants_name_in_the_header_is_denied(named: str) -> None:
    house = House()
    assert refused(house, X_Tenant_ID=named) == (403, "denied")
    assert house.admit(more={"X-Tenant-ID": "acme"}).tenant_id == "acme"


def test_a_role_in_the_header_gives_nothing() -> None:
    house = House()
    house.key = replace(house.key, roles=())
    assert refused(house, X_Role="viewer") == (403, "denied")


def test_a_tenant_outside_the_allowlist_is_denied_before_its_roles_are_looked_up() -> None:
    house = House(tenants=("umbrella",))
    assert refused(house) == (403, "denied")
    assert house.lookups == 1


def test_where_it_cannot_be_told_nobody_is_admitted_and_at_once_again_when_it_can() -> None:
    house = House(ttl=60)
    house.down = True
    for expected in (1, 2):
        assert refused(house) == (503, "access_unavailable")
        assert house.lookups == expected
    house.down = False
    assert house.admit().tenant_id == "acme"


def test_every_decision_is_counted_once_by_how_it_was_found() -> None:
    def counted() -> dict[tuple[str, str], float]:
        name = "beamline_gateway_rbac_decisions_total"
        pairs = [(d, c) for d in ("allow", "deny", "error") for c in ("hit", "miss", "none")]
        return {
            (decision, cache): REGISTRY.get_sample_value(
                name, {"decision": decision, "cache": cache}
            )
            or 0
            for decision, cache in pairs
        }

    before = counted()
    house = House(ttl=60)
    house.admit()
    house.admit()
    for _ in range(3):
        refused(house, Permission.USAGE_WRITE)
    refused(house, None)
    house.down = True
    refused(house, Permission.ACKS_WRITE)
    after = counted()
    assert {pair: after[pair] - before[pair] for pair in after if after[pair] != before[pair]} == {
        ("allow", "miss"): 1,
        ("allow", "hit"): 1,
        ("deny", "miss"): 1,
        ("deny", "hit"): 2,
        ("deny", "none"): 1,
        ("error", "miss"): 1,
    }


# -- standing -----------------------------------------------------------------------------------------


def test_who_stays_is_judged_again_once_a_ttl_and_may_go_on() -> None:
    house = House()
    standing = house.standing()
    before = house.lookups
    standing.check()
    standing.check()
    assert house.lookups == before
    wait_until(lambda: may_go_on(standing) and house.lookups == before + 2)


@pytest.mark.parametrize("revocation", ["key", "role"])
def test_a_revoked_right_ends_within_a_ttl_of_its_revocation_however_it_was_found(
    revocation: str,
) -> None:
    """The right was looked up by somebody else, long before this one came: the TTL is that lookup's."""
    house = House(ttl=LONGER_TTL_SECONDS)
    house.admit()
    found_by = time.monotonic()
    if revocation == "key":
        house.key = replace(house.key, revoked_at=datetime.now(UTC))
    else:
        house.granted = {"viewer": frozenset()}
    wait_until(lambda: time.monotonic() > found_by + LONGER_TTL_SECONDS / 2)
    standing = house.standing()
    asked_at = time.monotonic()
    while may_go_on(standing):
        assert asked_at < found_by + LONGER_TTL_SECONDS
        asked_at = time.monotonic()


def test_what_stays_open_ends_with_its_credential() -> None:
    house = House(ttl=60)
    expires_at = datetime.now(UTC) + timedelta(seconds=0.3)
    house.key = replace(house.key, expires_at=expires_at)
    standing = house.standing()
    wait_until(lambda: not may_go_on(standing))
    assert expires_at <= datetime.now(UTC)


def test_what_stays_open_ends_when_it_cannot_be_told_any_more() -> None:
    house = House()
    standing = house.standing()
    house.down = True
    wait_until(lambda: not may_go_on(standing))
    with pytest.raises(GatewayError) as caught:
        standing.check()
    assert caught.value.code == "access_unavailable"


def test_who_stays_is_judged_by_the_headers_that_it_came_with() -> None:
    house = House(ttl=0.1)
    headers = Headers({"Authorization": f"Bearer {KEY}"})
    standing = Standing(house.admission, house.admit(), headers, "203.0.113.9", READ)
    headers.clear()  # as a server may, once the request is read
    before = house.lookups
    wait_until(lambda: may_go_on(standing) and house.lookups > before)
