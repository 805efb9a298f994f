"""The files for deployment fit the package: what they name is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from llmbackend.cli import commands
from llmbackend.settings import Settings
from tests.unit.test_shape import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
OURS = [name for name, one in COMPOSE["services"].items() if one.get("image") == "llmbackend:local"]


def test_the_image_has_the_files_that_the_package_is_built_of() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE)
        for name in line.split()
    }
    assert all((ROOT / name).exists() for name in copied)
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert let_in == copied
    needed = re.findall(
        r'"([^"]+)"', re.search(r"only-include = (.*)", (ROOT / "pyproject.toml").read_text())[1]
    )  # type: ignore[index]
    assert {Path(name).parts[0] for name in needed} <= copied


def test_the_image_runs_as_nobody_who_may_do_anything() -> None:
    last = (ROOT / "Dockerfile").read_text().rpartition("FROM ")[2]
    assert re.search(r"^USER llmbackend$", last, re.MULTILINE)
    assert "HEALTHCHECK" in last
    assert "API_KEY" not in last


def test_what_compose_sets_are_settings() -> None:
    assert OURS == ["models", "server", "worker"]
    for name in OURS:
        for setting in COMPOSE["services"][name]["environment"]:
            assert setting.lower() in Settings.model_fields, setting


def test_what_compose_mounts_and_waits_for_is_there() -> None:
    services = COMPOSE["services"]
    for one in services.values():
        assert {volume.partition(":")[0] for volume in one.get("volumes", [])} <= set(COMPOSE["volumes"])
        assert set(one.get("depends_on", [])) <= set(services)
    made = (ROOT / "Dockerfile").read_text()
    for name in OURS:
        for volume in services[name]["volumes"]:
            folder = volume.partition(":")[2]
            assert f" {folder}" in made, "a volume takes its owner from the folder that is there"
    published = {name: one["ports"] for name, one in services.items() if "ports" in one}
    assert published == {"server": ["127.0.0.1:8888:8888"]}


def test_each_process_has_a_data_directory_of_its_own() -> None:
    data = [
        volume
        for name in OURS
        for volume in COMPOSE["services"][name]["volumes"]
        if volume.endswith(":/data")
    ]
    assert len(data) == len(set(data)) == 2


def test_what_a_worker_has_to_know_as_well_is_set_for_both() -> None:
    """It delivers webhooks, limits what is stored, and works in the same database, by the same models."""
    server, worker = (COMPOSE["services"][name]["environment"] for name in ("server", "worker"))
    its_own = {"API_KEY", "API_KEYS", "CORS_ORIGINS", "WORKERS"}
    assert {name: one for name, one in server.items() if name not in its_own} == worker
    assert {"PROJECT_LIMITS", "WEBHOOK_SECRET", "DATABASE_URL", "QDRANT_URL"} <= set(worker)


def _commands() -> list[list[str]]:
    """What containers and the unit run: the arguments of `llmbackend`."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.search(r'^ENTRYPOINT \["llmbackend"\]$', dockerfile, re.MULTILINE)
    unit = (ROOT / "deploy" / "llmbackend.service").read_text()
    started = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert [line.split()[0] for line in started] == ["/opt/llmbackend/bin/llmbackend"]
    return [
        *map(json.loads, re.findall(r"^CMD (.*)$", dockerfile, re.MULTILINE)),
        *(COMPOSE["services"][name]["command"] for name in OURS if "command" in COMPOSE["services"][name]),
        *(line.split()[1:] for line in started),
    ]


def test_the_commands_that_are_run_are_there_with_their_options() -> None:
    assert _commands() == [["serve"], ["models", "pull"], ["worker", "--concurrency", "4"], ["serve"]]
    for command in _commands():
        asked = CliRunner().invoke(commands.app, [*command, "--help"])
        assert asked.exit_code == 0, asked.output
        for option in (word for word in command if word.startswith("--")):
            assert option in asked.output


def test_the_health_check_tells_a_server_that_answers_from_one_that_does_not(server_url: str) -> None:
    line = re.search(r"^HEALTHCHECK .*\\\n +CMD (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert line is not None
    program, *arguments = json.loads(line[1])
    assert program == "python"
    for url, code in ((server_url, 0), ("http://127.0.0.1:9", 1)):
        given = [one.replace("http://127.0.0.1:8888", url) for one in arguments]
        assert given != arguments
        done = subprocess.run([sys.executable, *given], capture_output=True, timeout=30, check=False)
        assert done.returncode == code, done.stderr


def test_what_others_made_is_of_a_version_and_what_is_built_leaves_nothing_behind() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    images = [one["image"] for name, one in COMPOSE["services"].items() if name not in OURS]
    images += [line.split()[0] for line in re.findall(r"^FROM (.*)$", dockerfile, re.MULTILINE)]
    for image in images:
        tag = image.rpartition(":")[2]
        assert tag not in ("latest", image), image
        assert any(letter.isdigit() for letter in tag), image
    assert not re.search(r"^(ADD|MAINTAINER)|sudo|apt-get|chmod 777", dockerfile, re.MULTILINE)
    for line in re.findall(r"pip install.*", dockerfile):
        assert "--no-cache-dir" in line
    for name in OURS:
        one = COMPOSE["services"][name]
        assert one["read_only"] is True
        assert one["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in one["security_opt"]
    # What may be written to is what is mounted.
    writable = {"/data", "/models", "/backups", "/tmp"}
    for name in OURS:
        one = COMPOSE["services"][name]
        assert {volume.partition(":")[2] for volume in one["volumes"]} | set(one["tmpfs"]) <= writable


def test_the_unit_runs_as_a_user_who_may_write_to_its_data_alone() -> None:
    lines = (ROOT / "deploy" / "llmbackend.service").read_text().splitlines()
    assert [line for line in lines if line.startswith("[")] == ["[Unit]", "[Service]", "[Install]"]
    values = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert values["User"] == "llmbackend"
    assert values["ProtectSystem"] == "strict"
    assert values["NoNewPrivileges"] == "yes"
    name, _, folder = values["Environment"].partition("=")
    assert name.lower() in Settings.model_fields
    assert folder == f"/var/lib/{values['StateDirectory']}" == values["WorkingDirectory"]
    assert values["EnvironmentFile"] == "/etc/llmbackend.env", "keys are in a file of root's"
