"""`%load_ext llmbackend`: questions as cells, and completion of collections' names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_client import Answer, InvalidRequest, LLMBackendClient, LLMBackendError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

USAGE = (
    "write %%ask and a collection, or several with commas between, above a question: %%ask hr_policies; "
    "in one line, without a question mark, which IPython takes for its own: %ask hr_policies vacation days"
)


def load(shell: InteractiveShell) -> None:
    """Register `%ask` and `%%ask` in a shell; they use the client that the notebook has made."""
    asking = _Asking(shell)
    shell.register_magic_function(asking.ask, "line_cell", "ask")  # type: ignore[arg-type]
    for written in ("%ask", "%%ask"):
        shell.set_hook("complete_command", asking.names, str_key=written)  # type: ignore[no-untyped-call]


class _Asking:
    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._own: LLMBackendClient | None = None

    def ask(self, line: str, cell: str | None = None) -> Answer:
        """Answer from collections: `%%ask hr_policies` above a question, or `%ask hr_policies vacation policy`."""
        names, _, rest = line.strip().partition(" ")
        question = rest if cell is None else "\n".join(filter(None, [rest, cell]))
        collections = [name for name in names.split(",") if name]
        if not collections or not question.strip():
            raise InvalidRequest(USAGE)
        return self._client().rag_query(question.strip(), collections)

    def names(self, shell: Any, event: Any) -> list[str]:
        """The names of the collections, for completion."""
        try:
            known = [str(one["name"]) for one in self._client().list_collections(counts=False)]
        except LLMBackendError:
            return []
        before = event.symbol.rpartition(",")[0]
        return [f"{before},{name}" if before else name for name in known]

    def _client(self) -> LLMBackendClient:
        """The notebook's client: the variable `client`, else the last one made there, else a new
        `LLMBackendClient()`."""
        space = self._shell.user_ns
        made = [
            value for name, value in space.items() if isinstance(value, LLMBackendClient) and name[0] != "_"
        ]
        named = space.get("client")
        if isinstance(named, LLMBackendClient):
            return named
        if made:
            return made[-1]
        self._own = self._own or LLMBackendClient()
        return self._own
