"""Chat in this process alone: SmolLM2, or any GGUF file, on llama.cpp."""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from .. import threads, tracing
from ..errors import BackendError, InvalidRequest, LLMBackendError, NotFound
from ..threads import Threads
from . import catalogue
from .budget import Budget, in_bulk
from .chat import ChatModel, Window, window
from .choices import most_choices
from .context_limits import too_long
from .gguf import architecture
from .loops import LOOP_WINDOW, is_loop
from .models_folder import ModelsFolder
from .slots import Slots
from .weights import SMOLLM2, not_installed, path_of

_Result = TypeVar("_Result")

PENALTIES = {
    "repeat_penalty": 1.1,
    "dry_multiplier": 0.8,
    "dry_allowed_length": 4,
    "dry_penalty_last_n": 1024,
}
"""What makes SmolLM2's next word less likely: being one of the last 64, and continuing an earlier repetition
("DRY")."""

READ_ANEW = 1_000
"""Up to this many letters, SmolLM2 reads messages from the beginning each time, in half a second; of longer
ones it keeps what it has read."""

MOST_CHOICES = 256
"""Most choices of a reply's schema at one place. llama.cpp tries each of them with each word of the vocabulary, for each
token: 2,000 take five seconds of the processor, in which it writes no other reply."""

LARGEST = 2**31 - 1
"""Of a larger number llama.cpp takes the lower 32 bits only: `max_tokens=2**32 + 1` would be one token."""

PATIENCE = 7 * 24 * 3600.0
"""Seconds that a chat may wait for its turn. Callers with less patience cancel it."""

LOOK_EVERY = 16
"""How many pieces of a reply come between two searches for a loop."""


class LocalChat(ChatModel):
    """SmolLM2-135M-Instruct, or any GGUF file, on llama.cpp in this process.

    SmolLM2 is small: it copies facts well, but it invents an answer if it has none, and its judgement is
    poor.
    """

    sees = False
    _parallel = 2

    def __init__(self, models_folder: Path, chat_model: str | None, context: int) -> None:
        """`chat_model` is the name of a model that was pulled, or the path of a GGUF file; `context` its
        tokens to use.

        None means the model that is chosen in the folder, else SmolLM2.
        """
        folder = ModelsFolder(models_folder)
        wanted = chat_model or folder.chosen("chat") or SMOLLM2.model
        if wanted == SMOLLM2.model:
            self.path, self._name = path_of(SMOLLM2, models_folder), SMOLLM2.model
            self._window, self.abstracts = Window(2048, 400), False
        else:
            self.path, self._name = _larger(wanted, folder)
            self._window, self.abstracts = window(context), True
        self._loading = threading.Lock()
        # Chats have their own threads. In the shared ones, those that wait for llama.cpp would block
        # everything else.
        self._threads = Threads(self._parallel)
        self._turns = Budget(self._parallel)
        self._slots = Slots(self._parallel, self._window.context)
        self._at_work: dict[asyncio.Task[Any], threading.Event] = {}

    @property
    def name(self) -> str | None:
        return self._name if self.path.is_file() else None

    async def models(self) -> list[str]:
        return [self._name] if self.name else []

    async def window(self) -> Window:
        return self._window

    async def deadline(self) -> float:
        return math.inf

    async def complete(self, request: dict[str, Any], deadline: float | None = None) -> dict[str, Any]:
        trace = tracing.current()
        # Streaming underneath, so that a caller who leaves stops the model, too.
        content: list[str] = []
        finish_reason = None
        usage: dict[str, Any] = {}
        if _needs_whole(request):
            whole = partial(self._whole, await threads.processor(self._prepared, request))
            working = self._begin(self._in_turn(whole), threading.Event())
            # Shielded, because the thread goes on anyway, and close() has to wait for it.
            with trace.waiting():
                completion = await asyncio.shield(working)
            trace.used(self._name, completion.get("usage"))
            return completion
        chunk: dict[str, Any] = {}
        async for chunk in self.stream({**request, "stream_options": {"include_usage": True}}):
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                content.append(choice["delta"].get("content") or "")
                finish_reason = choice["finish_reason"] or finish_reason
        message = {"role": "assistant", "content": "".join(content)}
        return {
            "id": chunk.get("id", ""),
            "object": "chat.completion",
            "created": chunk.get("created", 0),
            "model": self._name,
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
            "usage": usage,
        }

    async def stream(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Stream from llama.cpp, which works in a thread; closing this generator stops it."""
        trace = tracing.current()
        prepared = await threads.processor(self._prepared, request)  # a large schema takes a moment
        request = {**prepared, "stream": True, "timings_per_token": True}
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        stopped = threading.Event()
        # JSON may repeat itself, as in a list of zeros, and must not be cut off.
        looks = not request.get("response_format")

        def deliver(chunk: dict[str, Any]) -> bool:
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            return stopped.is_set()

        def work() -> None:
            try:
                if not stopped.is_set():
                    self._ask(request, deliver, stopped)
            finally:
                loop.call_soon_threadsafe(chunks.put_nowait, None)

        working = self._begin(self._in_turn(work), stopped)
        said, pieces = "", 0
        told = False
        timings: dict[str, Any] = {}
        try:
            while True:
                with trace.waiting():
                    chunk = await chunks.get()
                if chunk is None:
                    break
                if "error" in chunk:
                    raise _error_of(chunk["error"], self._name)
                if chunk.get("usage"):
                    trace.used(self._name, chunk["usage"])
                    told = True
                timings = chunk.pop("timings", None) or timings
                chunk["model"] = self._name
                yield chunk
                said = (said + "".join(_said(chunk)))[-LOOP_WINDOW:]
                pieces += 1
                if looks and pieces % LOOK_EVERY == 0 and is_loop(said):
                    for last in _cut_short(chunk, timings, request):
                        yield last
                    stopped.set()
                    break
            await working  # raises the error if the model could not start
        finally:
            if not told:
                trace.used(self._name, _usage(timings))
            stopped.set()

    async def _in_turn(self, work: Callable[[], _Result]) -> _Result:
        """Do the work in a thread when it is its project's turn."""
        with in_bulk(False):  # as bulk work, it would get only one of the two places
            turn = await self._turns.take(1, PATIENCE, time.monotonic() + PATIENCE)
        try:
            return await self._threads(work)
        finally:
            turn.end()

    def _begin(self, work: Coroutine[Any, Any, _Result], stopped: threading.Event) -> asyncio.Task[_Result]:
        """Start work that runs in a thread. close() sets the event, which stops the work if it heeds it, and
        waits for it."""
        working = asyncio.create_task(work)
        self._at_work[working] = stopped
        working.add_done_callback(self._at_work.pop)
        return working

    def _whole(self, request: dict[str, Any]) -> dict[str, Any]:
        result = self._ask(request, None)
        result.pop("timings", None)
        result["model"] = self._name
        return result

    def _ask(
        self,
        request: dict[str, Any],
        callback: Callable[[dict[str, Any]], bool] | None,
        stopped: threading.Event | None = None,
    ) -> dict[str, Any]:
        with self._loading:
            server = self._server
        try:
            with self._slots.taken(request["messages"]) as (slot, known):
                if (request.get("n") or 1) == 1:  # choices are written in several slots
                    request = {**request, "id_slot": slot}
                    if request.get("cache_prompt", True) and not self._slots.read(
                        server, request, known, stopped
                    ):
                        return {}
                with self._slots.writing():
                    result = server.handle_chat_completions(request, callback) or {}
        except ValueError as error:
            raise InvalidRequest(f"{self._name} refused the request: {error}") from error
        except RuntimeError as error:
            raise BackendError(f"{self._name} failed: {error}", details={"backend": self._name}) from error
        if "error" in result:
            raise _error_of(result["error"], self._name)
        return dict(result)

    def _prepared(self, request: dict[str, Any]) -> dict[str, Any]:
        asked = request.get("model")
        if asked not in (None, self._name):
            raise NotFound(f"no model {asked!r} here: the embedded chat model is {self._name!r}")
        self._check(request)
        request = {_LLAMA_CPP.get(name, name): value for name, value in request.items()}
        for name in ("max_tokens", "max_completion_tokens", "top_k"):
            if request.get(name) is not None:
                request[name] = min(request[name], LARGEST)
        messages = request["messages"]
        context = self._window.context
        if (tokens := sum(map(_characters, messages)) // LONGEST_TOKEN) > context:
            raise too_long(f"more than {tokens}", self._name, context, {"tokens": tokens, "context": context})
        if messages[0]["role"] not in ("system", "developer"):
            # Otherwise the model's template makes it introduce itself instead of answering.
            messages = [{"role": "system", "content": "You are a helpful assistant."}, *messages]
        return {"max_tokens": 512, **self._sampling(request), **request, "messages": messages}

    def _sampling(self, request: dict[str, Any]) -> dict[str, Any]:
        """The defaults for what the caller leaves open."""
        if self.abstracts:
            return {"temperature": 0.2}
        # With random sampling, so small a model wanders off: one time in four when asked for the capital of
        # France. Without, it repeats itself: of 40 replies, 13 had not ended after 512 tokens. With the
        # penalties, none went round in circles. JSON gets no penalties, because it has to repeat its signs,
        # and copies words of the prompt. Short prompts are not cached: what is left of an earlier prompt
        # changes rounding, so that after a reply that was left early, the same question could get another
        # answer.
        greedy = {
            "temperature": 0.0
            if (request.get("n") or 1) == 1
            else 0.5,  # without, all choices would be the same
            "cache_prompt": len(str(request["messages"])) > READ_ANEW,
        }
        return greedy if request.get("response_format") else {**greedy, **PENALTIES}

    def _check(self, request: dict[str, Any]) -> None:
        """Raise InvalidRequest for what llama.cpp would silently ignore, or fail at."""
        if "structured_outputs" in request:
            raise InvalidRequest(f"structured_outputs: {self._name} has response_format only")
        for message in request["messages"]:
            if isinstance(message.get("content"), list):
                for part in message["content"]:
                    if part["type"] != "text":
                        raise InvalidRequest(f"messages: {self._name} reads text only, not {part['type']}")
        shape = (request.get("response_format") or {}).get("json_schema") or {}
        self._require_few_choices("schema", shape.get("schema"))
        for tool in request.get("tools") or ():
            if tool["type"] != "function":
                raise InvalidRequest(f"tools: {self._name} knows functions only, not {tool['type']}")
            if self._name != SMOLLM2.model:  # whose tools make no grammar
                function = tool["function"]
                self._require_few_choices(f"the parameters of {function['name']}", function.get("parameters"))
        if self._name == SMOLLM2.model and request.get("tool_choice") not in (None, "none", "auto"):
            raise InvalidRequest(
                f"tool_choice: {self._name} was not taught to call tools: ask for JSON by response_format instead"
            )

    def _require_few_choices(self, what: str, schema: Any) -> None:
        if (choices := most_choices(schema)) > MOST_CHOICES:
            raise InvalidRequest(
                f"{what}: it leaves {choices:,} choices at one place (values of an enum, optional fields, parts of an "
                f"anyOf), and {self._name} takes {MOST_CHOICES}: make it smaller, or use a chat server"
            )

    def require(self) -> None:
        """Raise BackendError if llama.cpp or the weights are not installed."""
        try:
            import xllamacpp  # noqa: F401
        except ModuleNotFoundError as error:
            raise not_installed(error) from error
        if not self.path.is_file():
            raise BackendError(
                f"the embedded chat model is not here yet ({self.path.name}): run `llmbackend models pull` once, "
                "or set VLLM_URL, LITELLM_URL or OPENAI_BASE_URL",
                details={"backend": "chat", "path": str(self.path)},
            )

    @cached_property
    def _server(self) -> Any:
        self.require()
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(self.path)
        parameters.n_parallel = self._parallel
        parameters.n_ctx = self._window.context * self._parallel
        # llama.cpp's threads spin while they wait for each other: on a busy machine, one fewer than cores is
        # faster.
        threads = max(1, (os.cpu_count() or 2) - 1)
        parameters.cpuparams.n_threads = threads
        parameters.cpuparams_batch.n_threads = threads
        # Otherwise up to 8 GiB of what earlier prompts computed would be kept. Each slot still keeps its last
        # prompt.
        parameters.cache_ram_mib = 0
        parameters.cache_idle_slots = False
        parameters.verbosity = 0
        if self._name == SMOLLM2.model:  # which fits anywhere: it is read twice to find that out
            parameters.fit_params = False
        # On a CPU, models that think before they answer would take minutes.
        parameters.default_template_kwargs = {"enable_thinking": "false"}
        # It also listens on a loopback port that nobody needs. A key that nobody knows closes it.
        parameters.ui = False
        parameters.api_keys = [secrets.token_urlsafe(32)]
        try:
            return xllamacpp.Server(parameters)
        except RuntimeError as error:
            raise _not_loaded(self._name, self.path) from error

    async def close(self) -> None:
        """Stop replies under way and wait for them: no thread may be inside llama.cpp when it is freed."""
        for stopped in self._at_work.values():
            stopped.set()
        if self._at_work:
            await asyncio.wait(self._at_work)
        self.__dict__.pop("_server", None)


def _larger(model: str, folder: ModelsFolder) -> tuple[Path, str]:
    """The file and the name of the GGUF model that CHAT_MODEL names, or that is chosen."""
    if model.endswith(".gguf"):
        path = Path(model).absolute()
        if not path.is_file():
            raise BackendError(
                f"CHAT_MODEL is {model!r}, but there is no such file: give the path of an existing .gguf file",
                details={"backend": "chat"},
            )
        return path, path.stem
    if (local := folder.find(model, "chat")) is not None:
        return local.file, local.name
    remedy = (
        f"run `llmbackend models pull {model}`"
        if catalogue.find(model)
        else "set VLLM_URL, LITELLM_URL or OPENAI_BASE_URL, or give the path of a .gguf file, or a name of "
        "`llmbackend models list`"
    )
    raise BackendError(
        f"CHAT_MODEL is {model!r} but no server is set for it, and it is not in {folder.folder}: {remedy}",
        details={"backend": "chat"},
    )


def _not_loaded(name: str, path: Path) -> BackendError:
    import xllamacpp

    loads = f"xllamacpp {catalogue.LOADED_FROM} and newer load it; " if catalogue.find(name) else ""
    try:
        kind = architecture(path)
        why = (
            f"its architecture is {kind!r}, and the llama.cpp of xllamacpp {xllamacpp.__version__} does not know that, or the "
            f"file is cut short, or there is too little memory: {loads}`pip install --upgrade xllamacpp`, or pull it anew"
        )
    except LookupError as error:
        why = f"{error}: pull it anew"
    return BackendError(
        f"{name} cannot be loaded from {path}: {why}", details={"backend": "chat", "path": str(path)}
    )


_LLAMA_CPP = {"repetition_penalty": "repeat_penalty"}
"""Parameters that llama.cpp calls by another name than vLLM does."""


def _said(chunk: dict[str, Any]) -> list[str]:
    return [choice["delta"].get("content") or "" for choice in chunk["choices"]]


def _cut_short(
    chunk: dict[str, Any], timings: dict[str, Any], request: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The last chunks of a stream that is cut off here, like those of llama.cpp at its maximum length."""
    yield {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
    if (request.get("stream_options") or {}).get("include_usage"):
        yield {**chunk, "choices": [], "usage": _usage(timings)}


def _usage(timings: dict[str, Any]) -> dict[str, int]:
    prompt = timings.get("prompt_n", 0) + timings.get("cache_n", 0)
    reply = timings.get("predicted_n", 0)
    return {"prompt_tokens": prompt, "completion_tokens": reply, "total_tokens": prompt + reply}


LONGEST_TOKEN = 256
"""Characters; longer than any. What cannot fit is refused before llama.cpp takes a hundred bytes for each of its tokens."""


def _characters(message: dict[str, Any]) -> int:
    content = message.get("content") or ""
    if isinstance(content, str):
        return len(content)
    return sum(len(part.get("text") or "") for part in content)


def _needs_whole(request: dict[str, Any]) -> bool:
    """Whether a request cannot be streamed underneath: several choices, tool calls and log probabilities are
    not assembled here."""
    return bool(request.get("tools") or request.get("logprobs") or (request.get("n") or 1) > 1)


def _error_of(error: dict[str, Any], model: str) -> LLMBackendError:
    if error.get("type") == "exceed_context_size_error":
        tokens, context = error["n_prompt_tokens"], error["n_ctx"]
        return too_long(str(tokens), model, context, {"tokens": tokens, "context": context})
    kind = InvalidRequest if error.get("code") == 400 else BackendError
    return kind(f"{model}: {error.get('message', 'failed')}", details={"backend": model})
