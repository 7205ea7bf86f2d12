"""Whether the package index answers. pip itself says so only after minutes of retries."""

import configparser
import os
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

_DEFAULT_INDEX = "https://pypi.org/simple"
_TIMEOUT_S = 10.0
_VARIABLES = {"index-url": "PIP_INDEX_URL", "no-index": "PIP_NO_INDEX", "proxy": "PIP_PROXY"}


def problems(environment: Mapping[str, str]) -> Iterator[str]:
    """To be asked if packages are to be installed."""
    options = pip_options(environment)
    url = options["index-url"].rstrip("/")
    if options.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        return
    if reason := unreachable(url, options.get("proxy")):
        yield (
            f"network: the package index {url} does not answer ({reason}), and packages are still to be installed."
            " Connect this machine, or name an index or a proxy: PIP_INDEX_URL=https://... or PIP_PROXY=http://..."
        )


def pip_options(environment: Mapping[str, str]) -> dict[str, str]:
    """pip's settings for the network: from its files, the last of which counts, and from its variables."""
    options = {"index-url": _DEFAULT_INDEX}
    for file in _config_files(environment):
        options |= _read(file)
    return options | {option: environment[name] for option, name in _VARIABLES.items() if environment.get(name)}


def _config_files(environment: Mapping[str, str]) -> Iterator[Path]:
    """As pip's documentation lists them, in the order in which pip reads them."""
    named = environment.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return
    home = Path(environment.get("HOME", "/nonexistent"))
    for folder in environment.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":"):
        yield Path(folder, "pip", "pip.conf")
    yield Path("/etc/pip.conf")
    yield home / ".pip" / "pip.conf"
    yield Path(environment.get("XDG_CONFIG_HOME", home / ".config"), "pip", "pip.conf")
    if named:
        yield Path(named)


def _read(file: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(file)
    except (configparser.Error, OSError, UnicodeDecodeError):
        return {}  # pip will say what is wrong with it
    sections = [parser[name] for name in ("global", "install") if name in parser]
    return {name.replace("_", "-"): value for section in sections for name, value in section.items()}


def unreachable(url: str, proxy: str | None = None, timeout_s: float = _TIMEOUT_S) -> str | None:
    """Why nothing answers there. Every HTTP answer counts as one, and so does a certificate that is not trusted here.

    In a thread, because looking up a name takes as long as the system likes. Without a proxy, that of the environment.
    """
    if not url.startswith(("https://", "http://")):
        return None
    found: list[str | None] = [f"not within {timeout_s:g} s"]

    def ask() -> None:
        found[:] = [_failure(url, proxy, timeout_s)]

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return found[0]


def _failure(url: str, proxy: str | None, timeout_s: float) -> str | None:
    request = urllib.request.Request(f"{url}/pip/", method="HEAD")
    handlers = [urllib.request.ProxyHandler({"http": proxy, "https": proxy})] if proxy else []
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout_s):
            return None
    except urllib.error.HTTPError as answer:
        answer.close()
        return None
    except urllib.error.URLError as error:
        return None if isinstance(error.reason, ssl.SSLError) else _text(error.reason)
    except (OSError, ValueError) as error:  # ValueError: not a URL
        return _text(error)


def _text(error: object) -> str:
    return str(getattr(error, "strerror", None) or error)
