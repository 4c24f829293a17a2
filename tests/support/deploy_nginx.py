"""Front: the real nginx with the configuration that is delivered, before instances on this machine.

Only what must differ here is changed: where it listens, where the instances are, where it keeps its files.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.support.deploy_program import DebianProgram
from tests.support.gateway_process import REPOSITORY
from tests.support.http_client import Client

NGINX: Final = "/usr/sbin/nginx"
DELIVERED: Final = REPOSITORY / "deploy" / "nginx"
BY_SUBREQUEST: Final = "identity-by-subrequest.inc"

_MAIN: Final = """\
# Root's workers would become www-data, which may not read a test's folder.
{user}
pid {folder}/nginx.pid;
error_log stderr info;
events {{ worker_connections 512; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {auth}
    include {folder}/beamline-gateway.conf;
}}
"""


class Front(DebianProgram):
    """nginx before two ``instances`` (``host:port`` each), ended with the test.

    ``auth`` is the address of the authenticating service; with it identity comes by subrequest.
    """

    name = "nginx"
    probe = ("/livez", 404)

    def __init__(
        self,
        instances: Sequence[str],
        *,
        auth: str | None = None,
    ) -> None:
        super().__init__()
        shutil.copytree(DELIVERED / "beamline", self.folder / "beamline")
        text = (DELIVERED / "beamline-gateway.conf").read_text()
        text = _replaced(text, r"listen 8080;", f"listen {self._port.address};")
        for instance, address in zip(("gateway-a", "gateway-b"), instances, strict=True):
            text = _replaced(text, rf"(?<=    server ){instance}:8080", address)
        if auth is not None:
            text = _replaced(text, r"beamline/identity\.inc", f"beamline/{BY_SUBREQUEST}")
        (self.folder / "beamline-gateway.conf").write_text(text)
        main = _MAIN.format(
            folder=self.folder,
            user="user root;" if Path(self.folder).owner() == "root" else "",
            auth=f"upstream auth {{ server {auth}; }}" if auth is not None else "",
        )
        (self.folder / "nginx.conf").write_text(main)

    def client(self, headers: Mapping[str, str] | None = None) -> Client:
        """A client without credentials unless ``headers`` hold some."""
        return Client(self.host, self.port, headers=headers or {})

    def check(self) -> subprocess.CompletedProcess[str]:
        """``nginx -t``."""
        return subprocess.run(
            [NGINX, "-t", "-p", self.folder, "-c", self.folder / "nginx.conf"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def command(self) -> Sequence[str]:
        """See `DebianProgram`."""
        return (
            NGINX,
            *("-p", str(self.folder)),
            *("-c", str(self.folder / "nginx.conf")),
            *("-g", "daemon off;"),
        )


def _replaced(text: str, pattern: str, new: str) -> str:
    """Fails where the delivered file does not hold what is to be replaced."""
    text, count = re.subn(pattern, lambda _: new, text)
    assert count == 1, f"{pattern} occurs {count} times in the delivered configuration"
    return text
