"""A conversation in the terminal, with editable lines, a history, replies as they are written, and commands
such as `/collection`."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from .. import Answer, LLMBackendClient, LLMBackendError, Reply
from ..text.visible import visible
from .shared import errors, out, print_piece, tell

HELP = """/collection NAME  answer from this collection; without a name, from none
/system TEXT      set how the model should behave
/new              start a new conversation
/quit             or Ctrl-D: leave
Ctrl-C stops a reply."""

LINES = 1000
"""How many lines of earlier conversations are kept."""


class ChatSession:
    """A conversation with a model or a collection."""

    def __init__(
        self, client: LLMBackendClient, *, system: str | None, model: str | None, collection: str | None
    ) -> None:
        self._client = client
        self._system = system
        self._model = model
        self._collection = collection
        self._said: list[dict[str, Any]] = []

    def ask(self, message: str) -> Reply | Answer:
        """Return the whole reply."""
        if self._collection is None:
            return self._client.chat(self._messages(message), model=self._model)
        return self._client.rag_query(message, self._collection, history=self._said or None)

    def say(self, message: str) -> None:
        """Print the reply as it is written, and keep it as history."""
        written = ""
        if self._collection is None:
            stream: Any = self._client.chat(self._messages(message), model=self._model, stream=True)
        else:
            stream = self._client.rag_query(
                message, self._collection, history=self._said or None, stream=True
            )
        try:
            for piece in stream:
                print_piece(piece)
                written += piece
        finally:
            stream.close()
            out.line()
        if self._collection is not None:
            for source in stream.sources:
                out.print(visible(f"[{source.number}] {source.document_id}"), style="dim", highlight=False)
        self._said += [{"role": "user", "content": message}, {"role": "assistant", "content": written or "…"}]

    def _messages(self, message: str) -> list[dict[str, Any]]:
        system = [{"role": "system", "content": self._system}] if self._system else []
        return [*system, *self._said, {"role": "user", "content": message}]

    def run(self) -> None:
        """Read and answer lines until the user leaves."""
        history = _History()
        errors.print("/help lists the commands", style="dim")
        try:
            while True:
                try:
                    line = input(f"{self._collection or ''}> ").strip()
                except KeyboardInterrupt:
                    out.line()
                    continue
                if line in ("/quit", "/exit"):
                    return
                if line:
                    self._answer(line)
        except EOFError:
            out.line()
        finally:
            history.save()

    def _answer(self, line: str) -> None:
        try:
            if line.startswith("/"):
                self.command(line)
            else:
                self.say(line)
        except KeyboardInterrupt:
            errors.print("stopped", style="yellow")
        except LLMBackendError as error:
            tell(error, as_json=False)

    def command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        match name:
            case "/collection":
                if rest:
                    self._client.get_collection(rest)  # raises NotFound
                self._collection = rest or None
                errors.print(visible(f"answers come from {rest or 'the model alone'}"), style="dim")
            case "/system":
                self._system = rest or None
            case "/new":
                self._said = []
            case "/help":
                errors.print(HELP)
            case _:
                errors.print(visible(f"there is no {name}: /help lists what there is"), style="yellow")


class _History:
    """Earlier lines on the arrow keys, if this Python has readline."""

    def __init__(self) -> None:
        from .. import settings

        self._file: Path | None = None
        self._readline: Any = None
        with suppress(ImportError, OSError, LLMBackendError):
            # Dynamic, because Windows has neither it nor its types.
            self._readline = import_module("readline")
            file = settings.load().data_dir / "chat_history"
            with suppress(FileNotFoundError):
                self._readline.read_history_file(file)
            self._readline.set_history_length(LINES)
            self._file = file

    def save(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._file.touch(mode=0o600)
                self._readline.write_history_file(self._file)
