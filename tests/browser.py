"""A real browser: headless Chromium, driven by selenium."""

import contextlib
import importlib
import os
import tempfile
from collections.abc import Iterator

import pytest


class Keys:
    """What WebDriver calls keys without a letter (W3C WebDriver, section 17.4.2)."""

    ESCAPE, HOME = "\ue00c", "\ue011"
    ARROW_LEFT, ARROW_UP, ARROW_RIGHT, ARROW_DOWN = "\ue012", "\ue013", "\ue014", "\ue015"


@contextlib.contextmanager
def chromium(kind: str = "desktop") -> Iterator:
    """Gives a selenium driver; where Chromium or selenium is missing the test is skipped, but in CI it fails.

    Args:
      kind: `desktop`, `phone` (390 x 844 pixels, touch) or `dark`.
    """
    find = importlib.import_module if os.environ.get("CI") else pytest.importorskip
    webdriver = find("selenium.webdriver")
    if not (os.path.exists("/usr/bin/chromedriver") and os.path.exists("/usr/bin/chromium")) and not os.environ.get(
        "CI"
    ):
        pytest.skip("no /usr/bin/chromedriver (Debian: chromium, chromium-driver)")
    width, height = {"phone": (390, 844)}.get(kind, (1280, 900))
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for argument in (
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
            *(f"--user-data-dir={profile}", f"--window-size={width},{height}"),
        ):
            options.add_argument(argument)
        if kind == "phone":
            metrics = {"width": width, "height": height, "pixelRatio": 1.0}
            options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
        try:
            if kind == "dark":
                feature = {"name": "prefers-color-scheme", "value": "dark"}
                driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            yield driver
        finally:
            driver.quit()
