"""compose.yaml and the Dockerfile (apt: docker-compose)."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

from fleet.parser import parser

DEPLOY = Path(__file__).parents[2] / "deploy"
ROOT = DEPLOY.parent
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]


def test_compose_reads_the_file() -> None:
    verdict = subprocess.run(
        ["docker-compose", "-f", DEPLOY / "compose.yaml", "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verdict.returncode == 0, verdict.stderr


def test_compose_and_the_password_script_use_the_same_pinned_broker() -> None:
    image = r"eclipse-mosquitto:(\S+)"
    compose = re.findall(rf"^    image: {image}$", (DEPLOY / "compose.yaml").read_text(), re.MULTILINE)
    script = re.findall(rf"^IMAGE={image}", (DEPLOY / "mosquitto" / "add-user.sh").read_text(), re.MULTILINE)
    assert compose == script
    assert re.fullmatch(r"\d+\.\d+\.\d+", compose[0])


def test_the_image_and_the_password_script_agree_on_the_aggregators_number() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    script = (DEPLOY / "mosquitto" / "add-user.sh").read_text()
    assert re.findall(r"--uid (\d+)", dockerfile) == re.findall(r"^AGGREGATOR_UID=(\d+)", script, re.MULTILINE)


def test_every_folder_that_a_container_mounts_or_copies_is_there() -> None:
    mounted = re.findall(r"^ +- \./(\S+?):/", (DEPLOY / "compose.yaml").read_text(), re.MULTILINE)
    assert sorted(mounted) == ["aggregator.toml", "mosquitto", "secrets/aggregator", "secrets/aggregator.password"]
    assert all((DEPLOY / name).exists() for name in mounted if not name.startswith("secrets/"))
    copied = re.findall(r"^COPY (\w+) (\w+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    packages = {name for name in PACKAGES if "." not in name}
    assert {source for source, _ in copied} == packages
    assert all(source == target for source, target in copied)
    sent = re.findall(r"^!(\w+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert set(sent) >= packages, "what the image copies has to be sent to its builder"


def test_the_page_is_for_the_machine_of_the_containers_alone() -> None:
    compose = (DEPLOY / "compose.yaml").read_text()
    (command,) = re.findall(r'^    command: (\["aggregator".*\])$', compose, re.MULTILINE)
    arguments = parser().parse_args(json.loads(command))
    assert arguments.web_in_container
    port = arguments.web.rpartition(":")[2]
    assert re.findall(rf'^ +- "(.*:{port})"$', compose, re.MULTILINE) == [f"127.0.0.1:{port}:{port}"]
    assert "web" in re.findall(r'pip install --no-cache-dir "\.\[(.*)\]"', (DEPLOY / "Dockerfile").read_text())[
        0
    ].split(",")


def test_what_is_secret_is_neither_committed_nor_sent_to_a_builder() -> None:
    ignored = (DEPLOY / ".gitignore").read_text().splitlines()
    assert {"/mosquitto/passwd*", "/secrets/"} <= set(ignored)
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()


def test_the_images_are_pinned_and_the_aggregator_is_not_root() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", bases[0])
    assert re.findall(r"^USER (\w+)$", dockerfile, re.MULTILINE) == ["fedge"]


def test_all_connections_that_the_broker_takes_have_a_file() -> None:
    files = re.findall(r"^      nofile: (\d+)$", (DEPLOY / "compose.yaml").read_text(), re.MULTILINE)
    for name in ("mosquitto.conf", "locked.conf"):
        lines = (DEPLOY / "mosquitto" / name).read_text().splitlines()
        most = [int(line.split()[1]) for line in lines if line.startswith("max_connections ")]
        assert len(most) == sum(line.startswith("listener ") for line in lines)
        assert 0 < sum(most) < int(files[0]) - 1000, "and the broker's own"
