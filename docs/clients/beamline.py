"""Sends requests to the gateway, again and again if need be, until they are settled.

    beamline.py POST /api/v1/usage < event.json

BEAMLINE_URL, BEAMLINE_KEY; BEAMLINE_PATIENCE_SECONDS (120) must stay below the gateway's IDEMPOTENCY_TTL_MS.
Exit code 0: done, the answer is on standard output. 1: refused, and asking again would not help; the answer is on
standard error. 3: not settled; whether it happened is not known, the same request later tells.
"""

import os
import random
import sys
import time

import requests


class NotSettledError(Exception):
    """Whether it happened is not known. Keep the request; sending the same one again later tells."""


class Beamline:
    """A gateway and a key to it. One for a thread: a session of ``requests`` is not for several."""

    def __init__(self, url, key, patience_seconds=120.0):
        self._url = url.rstrip("/")
        self._patience_seconds = patience_seconds
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {key}"

    def send(self, method, path, body=None):
        """The settled answer, a success or a refusal; else NotSettledError.

        ``body`` is bytes with an id of its own in them: every attempt sends the same ones.
        """
        give_up = time.monotonic() + self._patience_seconds
        headers = {} if body is None else {"Content-Type": "application/json"}
        attempt_seconds = 45 if method == "GET" else 15  # a long poll takes up to 30
        backoff = 0.2
        while True:
            retry_after = 0
            try:
                answer = self._session.request(
                    method,
                    self._url + path,
                    data=body,
                    headers=headers,
                    timeout=(2, attempt_seconds),
                    allow_redirects=False,
                )
            except (
                requests.ConnectionError,
                requests.Timeout,
                requests.exceptions.ChunkedEncodingError,
            ) as error:
                why = str(error)  # refused, reset, cut off, too slow: nothing is known
            else:
                if not _asks_for_another(answer):
                    return answer
                why = f"{answer.status_code} {answer.content.decode(errors='replace')}"
                retry_after = _retry_after(answer)

            # At least what the gateway asks for, and a random moment more, so that not everybody is back at once.
            pause = retry_after + random.uniform(0, backoff)
            backoff = min(backoff * 2, 10.0)
            if time.monotonic() + pause >= give_up:
                raise NotSettledError(why)
            print(f"again in {pause * 1000:.0f} ms: {why}", file=sys.stderr)
            time.sleep(pause)


def _asks_for_another(answer):
    if answer.status_code == 409:  # in_progress names a time, idempotency_conflict does not
        return "Retry-After" in answer.headers
    return answer.status_code in (408, 429, 500, 502, 503, 504)


def _retry_after(answer):
    value = answer.headers.get("Retry-After", "")
    return int(value) if value.isdecimal() else 0


def main(method, path):
    patience_seconds = float(os.environ.get("BEAMLINE_PATIENCE_SECONDS", "120"))
    gateway = Beamline(os.environ["BEAMLINE_URL"], os.environ["BEAMLINE_KEY"], patience_seconds)
    body = sys.stdin.buffer.read() if method == "POST" else None
    try:
        answer = gateway.send(method, path, body)
    except NotSettledError as error:
        print(f"not settled: {error}", file=sys.stderr)
        return 3
    done = 200 <= answer.status_code < 300
    (sys.stdout if done else sys.stderr).buffer.write(answer.content)
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
