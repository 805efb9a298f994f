"""Three projects behind one server, and a stand-in for the model server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from llmbackend.backend import Backend
from llmbackend.prompts import built_in
from llmbackend.settings import Settings
from tests.access.door import ADMIN, PROJECTS, Door
from tests.upstream.fake import running


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Door]:
    prompts = tmp_path_factory.mktemp("prompts")
    for project in ("hr", "support"):
        own = prompts / project / "policies"
        own.mkdir(parents=True)
        text = f"{built_in()['key_points'].text}\nThe secret of {project}.\n"
        (own / "key_points.md").write_text(text, encoding="utf-8")
    with ExitStack() as stack:
        upstream = stack.enter_context(running())
        settings = Settings(
            data_dir=tmp_path_factory.mktemp("data"),
            models_dir=models_dir,
            api_key=ADMIN,
            api_keys=",".join(f"{project}:key-of-{project}" for project in PROJECTS),
            openai_base_url=upstream.url,
            openai_api_key="sk-upstream-secret",
            chat_model="ok",
            prompts_dir=prompts,
        )
        portal = stack.enter_context(start_blocking_portal())
        backend = portal.call(Backend.open, settings)
        stack.callback(portal.call, backend.close)
        yield Door(portal, backend)
