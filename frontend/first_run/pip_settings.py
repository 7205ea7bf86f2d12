"""What is set for pip in its files and variables, and the same in the variables of uv, which reads none of them."""

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

_DEFAULT_INDEX = "https://pypi.org/simple"
_PREFIX = "PIP_"
_VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX",),
    "no-index": ("UV_NO_INDEX",),
    "cert": ("SSL_CERT_FILE",),
    "client-cert": ("SSL_CLIENT_CERT",),
    "proxy": ("HTTP_PROXY", "HTTPS_PROXY"),
    "timeout": ("UV_HTTP_TIMEOUT",),
    "default-timeout": ("UV_HTTP_TIMEOUT",),
}
_LISTS = {
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
}
"""With what is between the values. pip has spaces or lines."""


def pip_options(environment: Mapping[str, str]) -> dict[str, str]:
    """pip's settings by their long names: from its files, the last of which counts, and from its variables."""
    options = {"index-url": _DEFAULT_INDEX}
    for file in _config_files(environment):
        options |= _read(file)
    variables = {name: value for name, value in environment.items() if name.startswith(_PREFIX) and value}
    return options | {_option(name.removeprefix(_PREFIX)): value for name, value in variables.items()}


def for_uv(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which uv asks as pip would. What is set for uv itself stays."""
    options = pip_options(environment)
    found = {variable: options[name] for name in _VARIABLES.keys() & options for variable in _VARIABLES[name]}
    for name in _LISTS.keys() & options:
        variable, between = _LISTS[name]
        found[variable] = between.join(options[name].split())
    # pip takes the best version of all indexes, not those of the first index that has any.
    found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {**environment, **found, **{name: value for name, value in environment.items() if name.startswith("UV_")}}


def _config_files(environment: Mapping[str, str]) -> list[Path]:
    """As pip's documentation lists them, in the order in which pip reads them."""
    named = environment.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    home = Path(environment.get("HOME", "/nonexistent"))
    site = [Path(folder, "pip", "pip.conf") for folder in environment.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")]
    user = [home / ".pip" / "pip.conf", Path(environment.get("XDG_CONFIG_HOME", home / ".config"), "pip", "pip.conf")]
    return [*site, Path("/etc/pip.conf"), *user, *([Path(named)] if named else [])]


def _read(file: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(file)
    except (configparser.Error, OSError, UnicodeDecodeError):
        return {}  # pip will say what is wrong with it
    sections = [parser[name] for name in ("global", "install") if name in parser]
    return {_option(name): value for section in sections for name, value in section.items()}


def _option(name: str) -> str:
    return name.lower().replace("_", "-")
