"""A library minds its own business: importing it is cheap and silent, and logging belongs to the application."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HEAVY = (
    "alembic",
    "sqlalchemy",
    "llama_index",
    "openai",
    "qdrant_client",
    "qdrant_edge",
    "numpy",
    "requests",
    "pydantic",
    "starlette",
)


def _run(program: str, **variables: str) -> str:
    """What a program prints; on stderr it must print nothing."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_importing_loads_nothing_heavy_and_touches_nothing() -> None:
    program = """
        import logging, sys
        root = logging.getLogger()
        before = root.handlers[:], root.level
        loaded = set(sys.modules)
        import llmbackend
        assert (root.handlers, root.level) == before
        import json
        print(json.dumps(sorted({name.split(".")[0] for name in set(sys.modules) - loaded})))
    """
    loaded = json.loads(_run(program))
    assert "llm_client" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_the_process_that_reads_files_loads_nothing_heavy_either() -> None:
    """It is started again every few hundred files: 10,000 empty ones took minutes on a busy machine."""
    program = """
        import json, sys
        import llmbackend.files.process
        print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
    """
    loaded = json.loads(_run(program))
    assert [name for name in (*HEAVY, "asyncio", "anyio") if name in loaded] == []


TERMINAL = """
    import json, sys
    sys.argv, sys.stderr = ["llmbackend", *{arguments!r}], sys.stdout  # a bar of progress ends a line
    from llmbackend.cli import main
    try:
        main()
    except SystemExit as ended:
        assert not ended.code
    print(json.dumps(sorted(sys.modules)))
"""


def _terminal(*arguments: str, **variables: str) -> set[str]:
    """The modules that a command has imported when it ends."""
    return set(json.loads(_run(TERMINAL.format(arguments=arguments), **variables).splitlines()[-1]))


def test_a_command_loads_no_other_and_only_work_loads_what_works() -> None:
    loaded = _terminal("search", "--help")
    assert "llmbackend.cli.asking" in loaded
    assert not {"llmbackend.cli.collections", "llmbackend.cli.serving", "llmbackend.settings"} & loaded
    assert [name for name in HEAVY if name in loaded and name != "pydantic"] == []  # Typer may have it


def test_a_first_ingest_loads_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Router\n\nIt is reset by its button.\n")
    loaded = _terminal("ingest", "manual", str(tmp_path / "a.md"), LLMBACKEND_DATA_DIR=str(tmp_path / "data"))
    assert {"llmbackend.cli.collections", "qdrant_edge"} <= loaded
    assert (
        not {
            "llmbackend.cli.asking",
            "llmbackend.engines.bm25_first",
            "llmbackend.files.parsing",
            "llmbackend.notebook",
            "sqlalchemy.dialects.postgresql",
            "typer.rich_utils",
        }
        & loaded
    )


def test_what_is_imported_is_old_at_once() -> None:
    """Otherwise the next collections of garbage look at all of it."""
    program = """
        import gc
        from llmbackend.importing import uncollected
        for frozen in (False, True):
            gc.freeze() if frozen else None
            with uncollected():
                made = [[] for _ in range(10_000)]
            assert gc.isenabled()
            assert bool(gc.get_freeze_count()) == frozen, "what an application has frozen stays so"
            assert frozen or len(gc.get_objects(0)) < 1000
    """
    assert _run(program) == ""


SESSION = """
    import logging
    root = logging.getLogger()
    before = root.handlers[:], root.level, root.filters[:]
    from llmbackend import LLMBackendClient
    with LLMBackendClient() as client:
        client.rag_ingest("The router is reset by holding its button.", "manual")
        assert "button" in client.rag_query("How is the router reset?", "manual")
        assert client.chat("What is the capital of France?", temperature=0, max_tokens=5)
        assert (root.handlers, root.level, root.filters) == before, "while it is open"
    assert (root.handlers, root.level, root.filters) == before, "after"
"""


def test_a_session_in_this_process_is_silent_and_leaves_logging_alone(
    tmp_path: Path, models_dir: Path
) -> None:
    assert _run(SESSION, LLMBACKEND_DATA_DIR=str(tmp_path), LLMBACKEND_MODELS_DIR=str(models_dir)) == ""


def test_a_program_that_forgets_to_close_ends_and_gives_its_data_back(tmp_path: Path) -> None:
    program = """
        from llmbackend import LLMBackendClient
        print(LLMBackendClient().rag_ingest("The router is reset by holding its button.", "manual").{field})
    """
    for field in ("added", "unchanged"):
        assert _run(program.format(field=field), LLMBACKEND_DATA_DIR=str(tmp_path)) == "1\n"
    assert not (tmp_path / "holder.json").exists()


def test_documents_are_ingested_found_and_analyzed_without_llamaindex(
    tmp_path: Path, models_dir: Path
) -> None:
    """Nor what comes along with it, such as nltk, SciPy and pandas: that would be most of a first command's time.

    What two threads import of LlamaIndex at the same time fails in both; Alembic is for older databases, huey for other
    processes, requests for downloads.
    """
    program = """
        import gc, os, sys
        from llmbackend import LLMBackendClient
        before = dict(os.environ)
        said = "# Router\\n\\nIt is reset by its button.\\n\\n# Printer\\n\\n日本語 <|endoftext|> ..."
        with LLMBackendClient() as client:
            for _ in range(20):
                client.create_collection(f"c{len(client.list_collections())}")
            assert gc.isenabled()
            assert not {"llama_index", "alembic", "huey", "redis", "psycopg", "requests"} & set(sys.modules)
            long = "A paragraph about the printer. " * 500
            report = client.rag_ingest([{"id": "a.md", "text": said}, {"id": "b.md", "text": long}], "c")
            assert client.rag_search("How is the router reset?", "c")
            assert client.analyze_document("The router was awful. It broke after a day.").sentiment == "negative"
        assert not {"aiohttp", "llama_index.core", "nltk", "scipy", "pandas", "sklearn"} & set(sys.modules)
        assert dict(os.environ) == before
        from llama_index.core.utils import get_tokenizer
        from llmbackend.chunks.tokens import tokens_of
        assert len(get_tokenizer()(said)) == len(tokens_of(said))
        print(report.added)
    """
    found = _run(program, LLMBACKEND_DATA_DIR=str(tmp_path), LLMBACKEND_MODELS_DIR=str(models_dir))
    assert found == "2\n"


@pytest.mark.long
def test_parts_of_llamaindex_may_be_wanted_by_several_threads_at_once(tmp_path: Path) -> None:
    program = """
        import sys
        from concurrent.futures import ThreadPoolExecutor
        from llmbackend import LLMBackendClient
        sys.setswitchinterval(1e-5)
        with LLMBackendClient() as client, ThreadPoolExecutor() as pool:
            indexes = [pool.submit(client.llamaindex.index, f"i{n}") for n in range(3)]
            reports = [pool.submit(client.rag_ingest, "A sentence. " * 500, f"c{n}") for n in range(3)]
            assert all(one.result() is not None for one in indexes)
            assert all(one.result().added == 1 for one in reports)
    """
    assert _run(program, LLMBACKEND_DATA_DIR=str(tmp_path), LLMBACKEND_MODELS_DIR=str(tmp_path)) == ""
