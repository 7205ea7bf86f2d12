"""What is set for pip, as pip itself finds it, and what uv makes of it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from frontend.first_run.pip_settings import for_uv, pip_options


@pytest.mark.parametrize(
    ("files", "variables"),
    [
        ({}, {}),
        ({"etc/pip/pip.conf": "[global]\nindex-url = https://a.example/simple\n"}, {}),
        (
            {
                "etc/pip/pip.conf": "[global]\nindex-url = https://a.example/simple\n",
                "config/pip/pip.conf": "[install]\nindex_url = https://b.example/simple\n",
            },
            {},
        ),
        (
            {
                "config/pip/pip.conf": "[global]\nindex-url = https://b.example/simple\n",
                "named.conf": "[global]\nindex-url = https://c.example/simple\nproxy = http://p.example:3128\n",
            },
            {"PIP_CONFIG_FILE": "named.conf"},
        ),
        (
            {"config/pip/pip.conf": "[global]\nindex-url = https://b.example/simple\n"},
            {"PIP_INDEX_URL": "https://d.example/simple", "PIP_PROXY": "http://q.example:3128"},
        ),
        ({"config/pip/pip.conf": "[global]\nindex-url = https://b.example/simple\n"}, {"PIP_CONFIG_FILE": os.devnull}),
    ],
    ids=["default", "site", "user over site", "named file", "variables", "no files"],
)
def test_settings_are_those_that_pip_finds(
    tmp_path: Path, environment: dict[str, str], files: dict[str, str], variables: dict[str, str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    if (named := variables.get("PIP_CONFIG_FILE")) in files:
        variables = {**variables, "PIP_CONFIG_FILE": str(tmp_path / str(named))}
    ours = pip_options({**environment, **variables})
    ask = "from pip._internal.commands.install import InstallCommand as I; o = I('install', '').parse_args([])[0];"
    pip = subprocess.run(
        [sys.executable, "-c", f"{ask} print(o.index_url, o.proxy or None)"],
        env={"PATH": os.environ["PATH"], **environment, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [ours["index-url"], ours.get("proxy", "None")] == pip.stdout.split()


def test_uv_gets_what_is_set_for_pip(environment: dict[str, str]) -> None:
    set_for_pip = {
        "PIP_INDEX_URL": "https://a.example/simple",
        "PIP_EXTRA_INDEX_URL": "https://b.example/simple\nhttps://c.example/simple",
        "PIP_FIND_LINKS": "/srv/a /srv/b",
        "PIP_TRUSTED_HOST": "a.example b.example",
        "PIP_CERT": "/etc/ca.pem",
        "PIP_PROXY": "http://p.example:3128",
        "PIP_TIMEOUT": "60",
        "PIP_NO_INDEX": "",
    }
    found = for_uv({**environment, **set_for_pip})
    assert {name: value for name, value in found.items() if name not in {**environment, **set_for_pip}} == {
        "UV_DEFAULT_INDEX": "https://a.example/simple",
        "UV_INDEX": "https://b.example/simple https://c.example/simple",
        "UV_FIND_LINKS": "/srv/a,/srv/b",
        "UV_INSECURE_HOST": "a.example b.example",
        "SSL_CERT_FILE": "/etc/ca.pem",
        "HTTP_PROXY": "http://p.example:3128",
        "HTTPS_PROXY": "http://p.example:3128",
        "UV_HTTP_TIMEOUT": "60",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_what_is_set_for_uv_itself_stays(environment: dict[str, str]) -> None:
    named = {"UV_DEFAULT_INDEX": "https://u.example/simple", "PIP_INDEX_URL": "https://p.example/simple"}
    assert for_uv({**environment, **named})["UV_DEFAULT_INDEX"] == "https://u.example/simple"


def test_uv_takes_a_wheel_from_where_pip_would(tmp_path: Path, environment: dict[str, str]) -> None:
    """With the real uv."""
    uv = pytest.importorskip("uv").find_uv_bin()
    with zipfile.ZipFile(tmp_path / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    (tmp_path / "etc" / "pip").mkdir(parents=True)
    (tmp_path / "etc" / "pip" / "pip.conf").write_text(f"[global]\nno-index = true\nfind-links =\n    {tmp_path}\n")
    done = subprocess.run(
        [uv, "pip", "install", "--dry-run", "--no-cache", f"--python={sys.executable}", "tiny"],
        env={"PATH": os.environ["PATH"], **for_uv(environment)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "+ tiny==1.0" in done.stderr
