"""``/livez`` and ``/readyz``: is there a gateway, does it live, can requests succeed now?"""

from __future__ import annotations

from gateway.smoke.client import one_line
from gateway.smoke.failures import Failed, Failure
from gateway.smoke.session import Session


def livez(session: Session) -> str:
    """The process and its loop thread live."""
    answer = session.gateway.get("/livez")
    status = answer.document().get("status")
    if answer.status == 503 and status == "failed":
        raise Failed(Failure.NOT_LIVE, f"/livez: {answer}")
    if answer.status != 200 or status != "ok":
        raise Failed(Failure.NOT_A_GATEWAY, f"/livez of a gateway says ok; this answers {answer}")
    return f"a gateway lives at {session.gateway.base_url}"


def readyz(session: Session) -> str:
    """NATS is there and its streams are as required."""
    answer = session.gateway.get("/readyz")
    document = answer.document()
    if document.get("status") not in ("ready", "not_ready"):
        raise Failed(Failure.NOT_A_GATEWAY, f"/readyz: {answer}")
    if answer.status != 200 or document["status"] != "ready":
        missing = _joined(document.get("missing")) or str(answer)
        raise Failed(Failure.NOT_READY, f"not ready: {missing}")
    findings = document.get("findings")
    noted = f"; its audit notes: {_joined(findings)}" if findings else ""
    return f"ready{noted}"


def _joined(sentences: object) -> str:
    return one_line("; ".join(map(str, sentences))) if isinstance(sentences, list) else ""
