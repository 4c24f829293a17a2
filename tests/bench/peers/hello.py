"""The limit of Flask under gunicorn: a view that says hello, and nothing else."""

from __future__ import annotations

from flask import Flask

app = Flask(__name__)


@app.route("/<path:_any>", methods=["GET", "POST"])
def hello(_any: str) -> dict[str, bool]:
    """Hello."""
    return {"ok": True}
