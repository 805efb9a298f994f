"""Shared by the commands: options, display of results and errors, and interruption by Ctrl-C."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from .. import Answer, LLMBackendClient, LLMBackendError, Reply
from ..text.visible import visible

WIDE = 10_000
"""Width for output to a file or another program, so that nothing is cut or folded."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, as in shells."""

# Names and texts are shown verbatim: brackets and colons in them are not markup.
out = Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else WIDE)
errors = Console(stderr=True, markup=False, emoji=False)


def collection_names(context: typer.Context, incomplete: str) -> list[str]:
    """The names for a shell's completion; none if the server or the data directory cannot be opened."""
    try:
        with LLMBackendClient(context.params.get("url"), context.params.get("key")) as client:
            found = client.list_collections(counts=False)
    except LLMBackendError:
        return []
    return [one.name for one in found if one.name.startswith(incomplete)]


Collection = Annotated[str, typer.Argument(autocompletion=collection_names)]
Url = Annotated[
    str | None, typer.Option(help="The server's URL; without it, everything runs in this process.")
]
Key = Annotated[str | None, typer.Option(help="The server's API key; default LLM_BACKEND_API_KEY.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

# Arguments named in error messages, and the options for them.
_AS_TYPED = (
    ("LLMBackendClient(api_url=…)", "--url"),
    ("api_url=...", "--url"),
    ("api_url", "--url"),
    ("api_key", "--key"),
    ("collection=…", "--collection"),
    ("text=", "--text "),
)
_OPTION = re.compile(
    r"(?:\w+: )?(top_k|filters|mode|rerank|limit|since|until|by|can|models?|expires|rate|concurrent|tokens)(?=[:.\[])"
)
"""An option that is found wrong, at the beginning of a message, after the operation."""


def as_typed(message: str) -> str:
    """An error's message with a command's options instead of a call's arguments."""
    if found := _OPTION.match(message):
        name = "filter" if found[1] == "filters" else found[1].replace("_", "-")
        message = f"--{name}{message[found.end() :]}"
    for argument, option in _AS_TYPED:
        message = message.replace(argument, option)
    return message


def tell(error: LLMBackendError, *, as_json: bool) -> None:
    """Print an error on stderr, as a line or as JSON."""
    if as_json:
        print(json.dumps({"error": {**error.to_dict(), "message": as_typed(error.message)}}), file=sys.stderr)
    else:
        line = visible(f"{error.code}: {as_typed(error.message)}")
        errors.print(line, style="red", highlight=False, soft_wrap=True)


@contextmanager
def connected(url: str | None, key: str | None) -> Iterator[LLMBackendClient]:
    """Open a client; Ctrl-C stops its work and the command."""
    try:
        with _opened(url, key) as client:
            yield client
    except KeyboardInterrupt:
        errors.print("stopped", style="yellow")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _opened(url: str | None, key: str | None) -> Iterator[LLMBackendClient]:
    with errors.status("starting …") if url is None else _nothing():
        client = LLMBackendClient(url, key)
    with client:
        yield client


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def bar() -> Iterator[Any]:
    """A progress bar for the SDK's `progress=`; says that models are loading until the first step."""
    columns = (
        TextColumn("{task.description:<10}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task("loading models", total=None)

        def step(state: Any) -> None:
            progress.update(
                task,
                description=state["stage"],
                completed=state["done"],
                total=state["total"] or None,
            )

        yield step


def print_waiting(pending: Sequence[Any]) -> None:
    """Print on stderr the calls that a run waits for approval of."""
    for one in pending:
        said = f"waits: {one['tool']} {json.dumps(one['arguments'], ensure_ascii=False)}"
        errors.print(visible(said), highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON; a Reply or Answer as its text and attributes."""
    out.out(json.dumps(_plain(value), default=str, ensure_ascii=sys.stdout.isatty()), highlight=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Reply | Answer):
        return {"text": str(value), **vars(value)}
    return value


def print_piece(piece: str) -> None:
    """Print a piece of a streamed text."""
    out.out(visible(piece), end="", highlight=False)
    sys.stdout.flush()


def print_record(record: Mapping[str, Any]) -> None:
    """Print names and values, one per line."""
    table = Table(show_header=False)
    for name, value in record.items():
        if isinstance(value, list):
            value = "\n".join(_lines(value)) or "none"
        elif isinstance(value, Mapping):
            told = {
                key: ", ".join(map(str, one)) if isinstance(one, list) else one for key, one in value.items()
            }
            value = "\n".join(f"{key}: {one}" for key, one in told.items() if one not in (None, ""))
        table.add_row(name, visible(str(value)))
    out.print(table)


FOLDED = 5
"""How many documents with the same problem are named in a terminal; the others are counted."""


def _lines(items: list[Any]) -> list[str]:
    """The lines of a list; in a terminal, a problem that many documents share is one line."""
    told: dict[str, list[str]] = {}
    others = []
    for item in items:
        if isinstance(item, Mapping) and ("error" in item or "warning" in item):
            told.setdefault(str(item.get("error") or item["warning"]), []).append(str(item["id"]))
        else:
            others.append(str(item))
    for said, ids in told.items():
        if out.is_terminal and len(ids) > FOLDED:
            others.append(f"{', '.join(ids[:FOLDED])} and {len(ids) - FOLDED:,} more: {said}")
        else:
            others += [f"{id}: {said}" for id in ids]
    return others


def print_passage(text: str) -> None:
    """Print a text of several lines, indented."""
    for line in Text(visible(text)).wrap(out, max(out.width - 4, 20)):
        out.print(Text("    ").append_text(line), highlight=False, soft_wrap=True)


LEGIBLE = 12
"""A table whose columns would be narrower than this many characters is not legible."""


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str | Text]], nothing: str) -> None:
    """Print a table or, if the terminal is too narrow, a record for each row.

    Cells are wrapped if there is no room, and never cut. The first column is never wrapped, so that it can be
    copied.
    """
    if not rows:
        return out.print(nothing, highlight=False)
    cells = [[visible(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    columns = [Text(str(heading)) for heading in headings]
    table, least = Table(), 1
    for number, heading in enumerate(columns):
        widest = max(
            Measurement.get(out, out.options, cell).maximum
            for cell in (heading, *(row[number] for row in cells))
        )
        least += 3 + (widest if number == 0 else min(widest, LEGIBLE))
        table.add_column(heading, overflow="fold", no_wrap=number == 0, min_width=min(widest, LEGIBLE))
    if least <= out.width:
        for row in cells:
            table.add_row(*row)
        return out.print(table)
    for row in cells:
        record = Table(show_header=False, width=out.width)
        record.add_column(no_wrap=True)
        record.add_column(overflow="fold", ratio=1)
        for heading, cell in zip(columns, row, strict=True):
            if str(cell):
                record.add_row(heading, cell)
        out.print(record)
    return None


def size(number: int) -> str:
    return f"{number / 10**6:,.0f} MB" if number < 10**9 else f"{number / 10**9:.1f} GB"


def from_stdin() -> str:
    """The text on stdin. Raises BadParameter if there is none."""
    if not (text := sys.stdin.read()).strip():
        raise typer.BadParameter("stdin has no text")
    return text


def text_from(given: str | None) -> str:
    """The text given literally, by a file's name, or, with `-` or nothing, on stdin."""
    if given in (None, "-"):
        return from_stdin()
    path = Path(str(given))
    try:
        is_file = path.is_file()
    except OSError:  # for example, too long for a file name
        is_file = False
    return text_of_file(path) if is_file else str(given)


def text_of_file(path: Path) -> str:
    """The text of a file of any format that `ingest` reads. It is read in this process, even if a server does
    the work.

    What is left out is reported on stderr.
    """
    import asyncio

    from .. import settings
    from ..files.parsed import Unreadable
    from ..files.pool import Limits, ParsingPool

    options = settings.load()

    async def read(content: bytes) -> Any:
        pool = ParsingPool(Limits(options.file_seconds, options.file_memory_mb * 2**20))
        try:
            return await pool.parse(path.name, content)
        finally:
            await pool.close()

    try:
        (_, parsed), *inside = asyncio.run(read(path.read_bytes()))
    except Unreadable as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from None
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read: {error.strerror or error}") from None
    files = "1 file inside it is" if len(inside) == 1 else f"{len(inside)} files inside it are"
    left_out = [f"{files} left out: analyze each by itself"] if inside else []
    for warning in (*parsed.warnings, *left_out):
        errors.print(visible(f"{path.name}: {warning}"), style="yellow", highlight=False, soft_wrap=True)
    return str(parsed.text)


def object_from(text: str | None, option: str) -> dict[str, Any] | None:
    """Parse an option that is a JSON object. Raises BadParameter."""
    if text is None:
        return None
    try:
        found = json.loads(text)
        assert isinstance(found, dict)
    except (ValueError, AssertionError):
        raise typer.BadParameter(f'{option} must be a JSON object, such as {{"year": 2026}}') from None
    return found
