"""What is written first: Flask, and a NATS connection a request. No key, no claim, no trace, no metric."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import nats
from flask import Flask, request

app = Flask(__name__)


async def _ask(body: bytes) -> dict[str, Any]:
    client = await nats.connect(os.environ["NATS_URL"])
    try:
        reply = await client.request("beamline.router.v1.decide", body, timeout=5)
    finally:
        await client.close()
    answer: dict[str, Any] = json.loads(reply.data)
    return answer


@app.get("/livez")
def livez() -> dict[str, bool]:
    """Alive."""
    return {"ok": True}


@app.post("/api/v1/routes/decide")
def decide() -> dict[str, Any]:
    """Ask the Router."""
    return asyncio.run(_ask(request.get_data()))
