"""Debian's Chromium, headless, as a person's browser: what it shows, what it asks for, what it complains about."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.support.gateway_process import REPOSITORY
from tests.support.waiting import GENEROUS_SECONDS

SCREENSHOTS: Final = REPOSITORY / "reports"
_BROWSER, _DRIVER = "chromium", "chromedriver"
#: Chromium's own: extensions, settings, the empty tab.
_OWN_SCHEMES: Final = frozenset({"data", "about", "chrome", "chrome-extension", "chrome-untrusted"})


class Chromium:
    """One window. Nothing but this machine can be reached: every other name and address is turned down."""

    def __init__(self, *, scripts: bool = True, dark: bool = False) -> None:
        options = ChromeOptions()
        options.binary_location = _path(_BROWSER)
        for argument in (
            "--headless=new",
            "--window-size=1280,1000",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            # Anything but this machine is not found, and that is an error in the console.
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            "--no-proxy-server",
            # A container has neither another user nor a large /dev/shm for it.
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            "--disable-dev-shm-usage",
            *(["--force-dark-mode"] if dark else []),
        ):
            options.add_argument(argument)
        if not scripts:
            options.add_experimental_option(
                "prefs", {"profile.managed_default_content_settings.javascript": 2}
            )
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = Chrome(options=options, service=Service(_path(_DRIVER)))
        self.driver.set_page_load_timeout(GENEROUS_SECONDS)
        self._requested: list[str] = []
        self._complaints: list[str] = []

    def open(self, url: str) -> None:
        """Open a page, and wait until it has loaded."""
        self.driver.get(url)

    @property
    def text(self) -> str:
        """What a person can read."""
        shown = self.driver.execute_cdp_cmd(
            "Runtime.evaluate", {"expression": "document.body.innerText", "returnByValue": True}
        )
        return str(shown["result"]["value"])

    def requested(self) -> list[str]:
        """The URLs of all requests so far, Chromium's own pages left out."""
        for entry in self.driver.get_log("performance"):  # type: ignore[no-untyped-call]
            message: dict[str, Any] = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                if urlsplit(url).scheme not in _OWN_SCHEMES:
                    self._requested.append(url)
        return self._requested

    def complaints(self) -> list[str]:
        """What stands in the console so far: errors of scripts, what was not found, what a policy forbade."""
        for entry in self.driver.get_log("browser"):  # type: ignore[no-untyped-call]
            self._complaints.append(f"{entry['level']}: {entry['message']}")
        return self._complaints

    def screenshot(self, name: str) -> Path:
        """Keep what is seen, the whole page, as ``reports/<name>.png``."""
        SCREENSHOTS.mkdir(exist_ok=True)
        height = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"][
            "height"
        ]
        self.driver.set_window_size(1280, min(int(height) + 150, 6000))
        path = SCREENSHOTS / f"{name}.png"
        assert self.driver.save_screenshot(str(path)), "nothing was written"
        return path

    def close(self) -> None:
        self.driver.quit()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _path(program: str) -> str:
    found = shutil.which(program)
    assert found, f"{program} is not installed: apt-get install chromium chromium-driver"
    return found
