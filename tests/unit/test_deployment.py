"""The files for deployment fit the package: what they name is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

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
