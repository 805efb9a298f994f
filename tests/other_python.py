"""The SDK's file alone in a process of another Python, called as if it were here: so that one suite of tests is for both.

What cannot be sent (streams, handles, functions, iterators, classes of the tests) stays where it is, and is called from
the other side. As a program, this is the other side; there it needs what the SDK's file needs.
"""

from __future__ import annotations

import io
import itertools
import operator
import pickle
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

SDK = Path(__file__).parents[1] / "sdk" / "llm_client.py"


class Side:
    """One end of the pipe: what it keeps, by number, and what the other end keeps, as `Remote`."""

    def __init__(self, reading: Any, writing: Any) -> None:
        self._reading, self._writing = reading, writing
        self._kept: dict[int, Any] = {}
        self._numbers = itertools.count()
        self._lock = threading.RLock()

    def ask(self, *question: Any) -> Any:
        with self._lock:
            self.before()
            return self._asked(question)

    def before(self) -> None:
        """Called before each question."""

    def _asked(self, question: tuple[Any, ...]) -> Any:
        with self._lock:
            self._send(question)
            while True:
                kind, value = self._receive()
                if kind == "answer":
                    return value
                if kind == "error":
                    error, cause = value
                    raise error from cause
                self._answer(value)

    def serve(self) -> None:
        while True:
            try:
                _, question = self._receive()
            except EOFError:
                return
            except Exception as error:  # of a module that is not here, such as NumPy
                self._send(("error", (TypeError(f"cannot be read here: {error}"), None)), plain=True)
                continue
            self._answer(question)

    def keep(self, value: Any) -> int:
        number = next(self._numbers)
        self._kept[number] = value
        return number

    def _answer(self, question: tuple[Any, ...]) -> None:
        number, what, args, kwargs = question
        value = self._kept[number]
        try:
            if what == "get":
                found = getattr(value, *args)
            elif what == "next":
                found = next(value)
            elif what == "iter":
                found = iter(value)
            elif what == "item":
                found = value[args[0]]
            elif what == "repr":
                found = repr(value)
            else:
                found = value(*args, **kwargs)
            answer = ("answer", found)
        except BaseException as error:
            answer = ("error", (error, error.__cause__))
        try:
            self._send(answer, plain=True)
        except Exception as error:
            self._send(("error", (TypeError(f"cannot be sent: {error}"), None)), plain=True)

    def _send(self, message: Any, plain: bool = False) -> None:
        side = self

        class Pickler(pickle.Pickler):
            def persistent_id(self, value: Any) -> Any:
                if isinstance(value, Remote):
                    return ("yours", value._number)
                return ("mine", side.keep(value)) if _stays(value) else None

            def reducer_override(self, value: Any) -> Any:
                return _rebuilt(value)

        written = io.BytesIO()
        Pickler(written, 4).dump(message if plain else ("question", message))
        data = written.getvalue()
        self._writing.write(len(data).to_bytes(8, "little") + data)
        self._writing.flush()

    def _receive(self) -> Any:
        side = self

        class Unpickler(pickle.Unpickler):
            def persistent_load(self, value: Any) -> Any:
                whose, number = value
                return side._kept[number] if whose == "yours" else Remote(side, number)

        size = self._reading.read(8)
        if len(size) < 8:
            raise EOFError("the other Python has ended")
        data = self._reading.read(int.from_bytes(size, "little"))
        return Unpickler(io.BytesIO(data)).load()


def _stays(value: Any) -> bool:
    """Whether it cannot be sent, or the other Python has no such thing."""
    functions = (types.FunctionType, types.MethodType, types.BuiltinMethodType, types.GeneratorType)
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        found = getattr(sys.modules.get(value.__module__ or ""), value.__qualname__, None)
        return found is not value or value.__module__.startswith("tests")
    if isinstance(value, functions) or hasattr(type(value), "__next__"):
        return True
    return type(value).__name__ in ("LLMBackendClient", "CollectionHandle") or type(
        value
    ).__module__.startswith("tests")


def _rebuilt(value: Any) -> Any:
    """A table as another version of its library can make it again: what pickles have in it is for the same version."""
    module, name = type(value).__module__.partition(".")[0], type(value).__name__
    if name == "DataFrame" and module == "pandas" and not value.columns.is_unique:
        return type(value), (value.values.tolist(), None, list(value.columns))
    if name == "DataFrame" and module == "pandas" and (names := [one for one in value.index.names if one]):
        inside = set(names) <= set(value.columns)
        return operator.methodcaller("set_index", names, drop=not inside), (value.reset_index(drop=inside),)
    if name == "DataFrame" and module in ("pandas", "polars"):
        return type(value), ({column: list(value[column]) for column in value.columns},)
    if name == "LazyFrame" and module == "polars":
        return operator.methodcaller("lazy"), (value.collect(),)
    if name == "Series" and module == "pandas":
        return type(value), (list(value),)
    if name == "Series" and module == "polars":
        return type(value), (value.name, list(value))
    return NotImplemented


class Remote:
    """What the other side keeps."""

    def __init__(self, side: Side, number: int) -> None:
        self.__dict__.update(_side=side, _number=number)

    def __getattr__(self, name: str) -> Any:
        return self._side.ask(self._number, "get", (name,), {})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._side.ask(self._number, "call", args, kwargs)

    def __next__(self) -> Any:
        return self._side.ask(self._number, "next", (), {})

    def __iter__(self) -> Any:
        return self if hasattr(self, "__next__") else self._side.ask(self._number, "iter", (), {})

    def __getitem__(self, name: Any) -> Any:
        return self._side.ask(self._number, "item", (name,), {})

    def __repr__(self) -> str:
        return str(self._side.ask(self._number, "repr", (), {}))

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class OtherPython(Side):
    """The process; `client` is the SDK's, in it. Limits of the SDK that a test has changed here are changed there, too."""

    def __init__(self, python: str, url: str, key: str) -> None:
        self._process = subprocess.Popen(
            [python, __file__, str(SDK.parent), url, key], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        super().__init__(self._process.stdout, self._process.stdin)
        self.client = Remote(self, 0)
        self._limits: dict[str, int] = {}

    def before(self) -> None:
        limits = self._limits_here()
        if changed := dict(limits.items() - self._limits.items()):
            self._limits = limits
            self._asked((1, "call", (changed,), {}))

    @staticmethod
    def _limits_here() -> dict[str, int]:
        import llm_client

        return {
            name: value for name, value in vars(llm_client).items() if name.isupper() and type(value) is int
        }

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


_PICTURES = "pictures, and LlamaIndex's classes, come with the package"
_STDERR = "what the other process writes to its stderr is not captured"
_ONE = "the calls of several threads go one after the other"
_ADDRESS = "an object that stays here is shown by what stands for it there"
_PICKLES = (
    "pickles of pandas' own values, and of classes of the tests, are not for another version, or not there"
)

LEFT_OUT = {
    "test_a_collection_s_handle_has_the_client_s_calls": _PICTURES,
    "test_an_empty_collection_has_no_map": _PICTURES,
    "test_a_map_by_a_field_that_no_document_has_is_refused": _PICTURES,
    "test_other_libraries_documents_are_taken": _PICTURES,
    "test_a_reader_reads_files_of_its_own_kind": _PICTURES,
    "test_llamaindex_reads_files_by_a_reader": _PICTURES,
    "test_parquet_takes_cells_that_are_missing_and_of_several_types": _PICKLES,
    "test_vectors_are_those_of_embed[other_python-reader]": "a reader of Arrow's stays here, and is an iterator there",
    "test_a_bar_shows_progress": _STDERR,
    "test_a_bar_ends_its_line_when_the_call_fails": _STDERR,
    "test_a_document_replaced_between_two_pages_is_listed_once": _ONE,
    "test_deleting_during_an_ingest_ends_it": _ONE,
    "test_both_transports_agree[embed: an object]": _ADDRESS,
    "test_both_transports_agree[embed: a text and an object]": _ADDRESS,
    "test_values_of_python_are_stored_as_json_has_them": _PICKLES,
    "test_what_json_has_not_is_refused_by_its_place[other_python-<class 'pandas.api.typing.NaTType'>": _PICKLES,
}
"""Beginnings of the names of tests that are not for another process, and why."""


if __name__ == "__main__":
    folder, *address = sys.argv[1:]
    sys.path[0] = folder  # in place of the tests'
    import llm_client

    writing, sys.stdout = sys.stdout.buffer, sys.stderr
    side = Side(sys.stdin.buffer, writing)
    side.keep(llm_client.LLMBackendClient(*address))
    side.keep(vars(llm_client).update)
    side.serve()
