"""Write `llmbackend/async_client.py`: the client's class and its streams, with `await` where something is waited for.

    python sdk/make_async.py

A test compares what is checked in with what this writes.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("llm_client.py")
TARGET = SOURCE.parents[1] / "llmbackend" / "async_client.py"

CLASSES = (
    "_TextStream",
    "ReplyStream",
    "AnswerStream",
    "AgentStream",
    "LLMBackendClient",
    "CollectionHandle",
)
FUNCTIONS = ("_events", "_rows", "_close")
"""Functions that read from a transport. All others are the same for both clients, and imported."""

PLAIN = {
    *("__init__", "__repr__", "__getitem__", "__getstate__", "__deepcopy__"),
    *("_given", "_take", "_take_call", "_tool_name", "alive"),
}
"""Methods that wait for nothing, beside properties."""

LEFT_OUT = {"llamaindex", "_ipython_key_completions_", "_about"}
"""Methods that the asynchronous classes lack: LlamaIndex's are asynchronous themselves, and IPython awaits nothing."""

GENERATORS = {"ahead", "batches", "_events", "_rows", "_sent", "_told", "job_events"}
"""Functions whose results are iterated over by `async for` instead of awaited."""

RENAMED = {
    **{name: f"Async{name}" for name in CLASSES[1:]},
    "Iterator": "AsyncIterator",
    "Transport": "AsyncTransport",
    "HttpTransport": "AsyncHttpTransport",
    "_local_transport": "local_transport",
    "_ahead": "ahead",
    "_batches": "batches",
    "_Client": "_AsyncClient",
    "StopIteration": "StopAsyncIteration",
    "__enter__": "__aenter__",
    "__exit__": "__aexit__",
    "__next__": "__anext__",
    "next": "anext",
}

READS_FILES = {"find_files", "file_contents", "_agent_input", "_questions"}
"""Functions that would block the loop, and so run in a thread."""


class Awaiting(ast.NodeTransformer):
    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        if node.name == "LLMBackendClient":
            node.body[0] = ast.Expr(ast.Constant(ABOUT))
        node.body = [one for one in node.body if getattr(one, "name", None) not in LEFT_OUT]
        node.name = RENAMED.get(node.name, node.name)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        decorators = {ast.unparse(one) for one in node.decorator_list}
        waits = node.name not in PLAIN and "property" not in decorators
        node.name = RENAMED.get(node.name, node.name)
        self.generic_visit(node)
        return ast.AsyncFunctionDef(**vars(node)) if waits else node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(RENAMED.get(node.id, node.id), node.ctx)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """Rename the class in strings; there are no quoted annotations."""
        if isinstance(node.value, str) and node.value.startswith("LLMBackendClient("):
            return ast.Constant("Async" + node.value)
        return node

    def visit_For(self, node: ast.For) -> ast.AST:
        over = node.iter
        self.generic_visit(node)
        waits = RENAMED.get(_called(over), _called(over)) in GENERATORS or ast.unparse(over) == "chunks"
        return ast.AsyncFor(**vars(node)) if waits else node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """Replace `yield from`, which asynchronous generators do not have."""
        self.generic_visit(node)
        if isinstance(node.value, ast.YieldFrom):
            one = ast.Name("one", ast.Store())
            each = ast.Expr(ast.Yield(ast.Name("one", ast.Load())))
            return ast.AsyncFor(one, node.value.value, [each], [])
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name, whole = _called(node), ast.unparse(node.func)
        self.generic_visit(node)
        if whole == "time.sleep":
            node.func = ast.parse("asyncio.sleep", mode="eval").body
            return ast.Await(node)
        if name in READS_FILES:
            return ast.Await(ast.Call(ast.Name("in_thread", ast.Load()), [node.func, *node.args], []))
        of_another = whole.startswith(("self._transport.", "self._client."))
        ours = whole.startswith("self.") or whole in (
            "next",
            "close",
            "_close",
            "answer._begin",
        )
        if name in GENERATORS or name in PLAIN or not ours or whole.count(".") > 1 + of_another:
            return node
        return ast.Await(node)


def _called(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)


def written() -> str:
    """Return the module's text, formatted."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    named = {node.name: node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    there = set(named) | {
        target.id
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    own = [Awaiting().visit(named[name]) for name in (*FUNCTIONS, *CLASSES)]
    body = "\n\n".join(ast.unparse(ast.fix_missing_locations(node)) for node in own)
    used = {node.id for part in own for node in ast.walk(part) if isinstance(node, ast.Name)}
    shared = sorted((used & there) - {RENAMED.get(name, name) for name in (*FUNCTIONS, *CLASSES)})
    head = (
        f'"""{DOC}"""\n\nfrom __future__ import annotations\n\n{IMPORTS}\n'
        f"from llm_client import {', '.join(shared)}\n"
        "from .async_local import local_transport\n"
        "from .async_transports import AsyncHttpTransport, AsyncTransport, ahead, batches, in_thread\n\n"
        '_AsyncClient = TypeVar("_AsyncClient", bound="AsyncLLMBackendClient")\n\n'
    )
    text = head + body + "\n"
    for command in (["check", "--fix", "--quiet", "--select", "F401,I,UP"], ["format", "--quiet"]):
        name = ["--stdin-filename", str(TARGET), "-"]
        ruff = [sys.executable, "-m", "ruff", *command, *name]
        text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout
    return text


DOC = "The client for `await`. Written by sdk/make_async.py from sdk/llm_client.py: change that, and run it again."

ABOUT = """Chat, embeddings, RAG, jobs and document analysis for `await`, in this process or over HTTP.

    The calls, results and errors of LLMBackendClient, which says what they are; made by the same arguments.

        async with AsyncLLMBackendClient() as client:
            reply = await client.chat("Analyze this data...")
            async for piece in await client.chat("Go on.", stream=True):
                print(piece, end="")

    In this process the work is done on the loop that first uses the client, which is to be the only one. Cancelling
    the task that waits for a call ends the call's work. Use `async with`, or `await client.close()` before the loop ends.
    """

IMPORTS = """
import asyncio
import contextlib
import json
import os
import re
import time
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeVar, cast, overload
"""

if __name__ == "__main__":
    TARGET.write_text(written(), encoding="utf-8")
