"""All commands of `llmbackend`. Each is imported and made when it is run or shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from .. import __version__
from .shared import out

MODULES = {
    "serving": ("init", "serve", "worker", "demo", "openapi"),
    "asking": ("chat", "query", "search", "embed", "analyze"),
    "collections": (
        *("ingest", "collections", "documents", "delete", "reindex", "evaluate"),
        *("export", "import"),
    ),
    "usage": ("usage", "audit"),
    "doctor": ("doctor",),
    "backup": ("backup", "restore"),
    "jobs": ("jobs",),
    "agents": ("agent",),
    "keys": ("keys",),
    "models": ("models",),
}
"""The commands of each module, in the order in which help lists them."""


class _Commands(Mapping[str, Any]):
    """Typer's commands by name. Making all of them would take longer than most of them do."""

    def __getitem__(self, name: str) -> Any:
        module = next((module for module, names in MODULES.items() if name in names), None)
        if module is None:
            raise KeyError(name)
        made = typer.Typer()
        import_module(f".{module}", __package__).add_to(made)
        made.registered_commands = [
            one
            for one in made.registered_commands
            if name in (one.name, getattr(one.callback, "__name__", None))
        ]
        return get_group(made).commands[name]

    def __iter__(self) -> Iterator[str]:
        return (name for names in MODULES.values() for name in names)

    def __len__(self) -> int:
        return sum(map(len, MODULES.values()))


class _Group(TyperGroup):
    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = _Commands()  # type: ignore[assignment]  # it is only read


app = typer.Typer(
    cls=_Group,
    help="Chat, embeddings, RAG and jobs: in this process, or on a server given by --url or LLM_BACKEND_URL.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, help="Print the version.")] = False,
) -> None:
    pass
