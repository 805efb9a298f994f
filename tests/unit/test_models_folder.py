"""Local models: fetched whole and verified, gone on with after an interruption, and used."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save_model

from llmbackend import BackendError, Conflict, InsufficientStorage, InvalidRequest, LLMBackendClient, doctor
from llmbackend.inference import catalogue, download
from llmbackend.inference.catalogue import ENTRIES, Entry, File
from llmbackend.inference.local_chat import LocalChat
from llmbackend.inference.models_folder import ModelsFolder
from llmbackend.inference.static_vectors import WORDLLAMA
from llmbackend.inference.weights import MINILM, SMOLLM2, path_of
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import serving

CONTENT = b"GGUF" + bytes(range(256)) * 20_000
"""5 MB that begin as a model does."""


class Mirror:
    """A server of files over HTTP that may break off: `cuts` are the bytes it sends in each of its next replies."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.asked: list[tuple[str, str | None]] = []
        self.ranges = True
        self.status: list[int] = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.asked.append((self.path, self.headers.get("Range")))
                if mirror.status:
                    self.send_error(mirror.status.pop(0))
                    return
                content = mirror.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                mark = f'"{hashlib.md5(content).hexdigest()}"'
                start = 0
                if mirror.ranges and self.headers.get("If-Range", mark) == mark:
                    start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
                if start and start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("ETag", mark)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                most = mirror.cuts.pop(0) if mirror.cuts else len(content)
                self.wfile.write(content[start : start + most])
                self.close_connection = True

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def offer(self, entry: Entry, *contents: bytes) -> None:
        for file, content in zip(entry.files, contents, strict=True):
            self.files[entry.url(file, "")] = content

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    server = Mirror()
    yield server
    server.close()


def _chat(content: bytes = CONTENT, name: str = "Large-Chat") -> Entry:
    sha256 = hashlib.sha256(content).hexdigest()
    files = (File("large.gguf", "large.gguf", len(content), sha256),)
    return Entry(name, "chat", "org/large", "0" * 40, files, "Apache-2.0", 100, "tests")


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch, mirror: Mirror) -> Entry:
    entry = _chat()
    monkeypatch.setattr(catalogue, "ENTRIES", (*ENTRIES, entry))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    mirror.offer(entry, CONTENT)
    return entry


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_pull_whose_connection_breaks_twice_goes_on_where_it_was(
    mirror: Mirror, large: Entry, tmp_path: Path
) -> None:
    mirror.cuts = [2_000_000, 1_500_000]
    seen: list[tuple[int, int | None]] = []
    local = ModelsFolder(tmp_path).pull(
        large.name, mirror.url, lambda name, done, total: seen.append((done, total))
    )
    first, second, third = (int((told or "bytes=0-")[6:-1]) for _, told in mirror.asked)
    assert first == 0
    assert 1_900_000 < second <= 2_000_000
    assert 3_300_000 < third <= 3_500_000
    assert local.file.read_bytes() == CONTENT
    assert _names(tmp_path) == {"Large-Chat/large.gguf", "chosen.json"}
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_pull_that_was_given_up_goes_on_in_the_next_call(
    mirror: Mirror, large: Entry, tmp_path: Path
) -> None:
    folder = ModelsFolder(tmp_path)
    mirror.cuts = [3_000_000, *[0] * download.ATTEMPTS]
    with pytest.raises(BackendError, match=r"127\.0\.0\.1.*2 MB are here.*goes on"):
        folder.pull(large.name, mirror.url)
    assert folder.here() == []
    assert folder.pull(large.name, mirror.url).file.read_bytes() == CONTENT
    assert 2_900_000 < int((mirror.asked[-1][1] or "bytes=0-")[6:-1]) <= 3_000_000


def test_a_killed_pull_goes_on_in_the_next_process(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["/own.gguf"] = CONTENT * 20
    environment = {**os.environ, "LLMBACKEND_MODELS_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "llmbackend", "models", "pull", f"{mirror.url}/own.gguf"]
    pulling = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL)
    part = tmp_path / ".own.part" / "own.gguf.part"
    while not (part.is_file() and part.stat().st_size):
        assert pulling.poll() is None or (tmp_path / "own").is_dir()
        if (tmp_path / "own").is_dir():
            break
        time.sleep(0.001)
    pulling.send_signal(signal.SIGKILL)
    pulling.wait()
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "own" / "own.gguf").read_bytes() == CONTENT * 20
    assert _names(tmp_path) == {"own/own.gguf", "chosen.json"}
    assert "own: it is used for chat from the next start on" in done.stdout


def test_a_wrong_byte_is_refused_and_nothing_stays(mirror: Mirror, large: Entry, tmp_path: Path) -> None:
    mirror.offer(large, CONTENT[:-1] + b"?")
    with pytest.raises(BackendError, match=r"SHA-256 .* not installed"):
        ModelsFolder(tmp_path).pull(large.name, mirror.url)
    assert _names(tmp_path) == set()


@pytest.mark.parametrize("content", [CONTENT[:-10], CONTENT + b"more"])
def test_a_file_of_another_length_is_refused(
    mirror: Mirror, large: Entry, tmp_path: Path, content: bytes
) -> None:
    mirror.offer(large, content)
    with pytest.raises(BackendError):
        ModelsFolder(tmp_path).pull(large.name, mirror.url)
    assert ModelsFolder(tmp_path).here() == []


def test_a_file_that_became_another_is_fetched_anew(mirror: Mirror, tmp_path: Path) -> None:
    folder, other = ModelsFolder(tmp_path), b"GGUF" + bytes(3_000_000)
    mirror.files["/own.gguf"] = CONTENT
    mirror.cuts = [2_000_000, *[0] * download.ATTEMPTS]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "sleep", lambda seconds: None)
        with pytest.raises(BackendError, match="goes on"):
            folder.pull(f"{mirror.url}/own.gguf", "")
    mirror.files["/own.gguf"] = other
    assert folder.pull(f"{mirror.url}/own.gguf", "").file.read_bytes() == other


def test_a_server_without_ranges_sends_all_again(mirror: Mirror, large: Entry, tmp_path: Path) -> None:
    mirror.ranges, mirror.cuts = False, [2_000_000]
    assert ModelsFolder(tmp_path).pull(large.name, mirror.url).file.read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(mirror: Mirror, large: Entry, tmp_path: Path) -> None:
    mirror.status = [503, 429]
    assert ModelsFolder(tmp_path).pull(large.name, mirror.url).file.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "told"), [(404, "no such file"), (401, "by its path"), (403, "by its path")]
)
def test_a_refusal_is_told_with_the_remedy(
    mirror: Mirror, large: Entry, tmp_path: Path, status: int, told: str
) -> None:
    mirror.status = [status]
    with pytest.raises(BackendError, match=rf"{status}.*{told}"):
        ModelsFolder(tmp_path).pull(large.name, mirror.url)
    assert _names(tmp_path) == set()


def test_without_a_network_a_line_tells_what_to_do(large: Entry, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"cannot be reached.*MODELS_URL.*path"):
        ModelsFolder(tmp_path).pull(large.name, "http://127.0.0.1:9")
    assert _names(tmp_path) == set()


def test_room_is_asked_for_before_anything_is_written(mirror: Mirror, large: Entry, tmp_path: Path) -> None:
    with pytest.raises(InsufficientStorage, match=str(tmp_path)):
        ModelsFolder(tmp_path).pull(large.name, mirror.url, reserve_mb=2**40)
    assert _names(tmp_path) == set()


def test_a_disk_that_fills_up_keeps_nothing(
    mirror: Mirror, large: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "_write", full)
    with pytest.raises(InsufficientStorage, match=str(tmp_path)):
        ModelsFolder(tmp_path).pull(large.name, mirror.url)
    assert _names(tmp_path) == set()


def test_two_who_pull_the_same_do_not_mix(mirror: Mirror, large: Entry, tmp_path: Path) -> None:
    folder = ModelsFolder(tmp_path)

    def tell(name: str, done: int, total: int | None) -> None:
        with pytest.raises(Conflict, match="another process"):
            ModelsFolder(tmp_path).pull(large.name, mirror.url)

    assert folder.pull(large.name, mirror.url, tell).file.read_bytes() == CONTENT


@pytest.mark.parametrize("source", ["no-such-model", "qwen3-0.6", "http://127.0.0.1:9/model.safetensors"])
def test_what_is_no_model_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(InvalidRequest, match=r"models list|gguf") as told:
        ModelsFolder(tmp_path).pull(source, "")
    if source == "qwen3-0.6":
        assert "is Qwen3-0.6B meant?" in str(told.value)


@pytest.mark.parametrize("name", ["letter.gguf", "letter.txt"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("Dear Sir or Madam,")
    with pytest.raises((BackendError, InvalidRequest), match=r"no GGUF file|is no model"):
        ModelsFolder(tmp_path / "models").pull(str(tmp_path / name), "")
    assert not (tmp_path / "models").exists() or _names(tmp_path / "models") == set()


def test_every_entry_is_pinned_and_openly_licensed() -> None:
    for entry in ENTRIES:
        assert len(entry.revision) == 40
        model = entry.files[0]
        assert len(model.sha256 or "") == 64
        assert model.size
        assert entry.license.startswith(("Apache-2.0", "MIT"))
        assert entry.url(model, "https://huggingface.co").startswith(
            f"https://huggingface.co/{entry.repository}/"
        )


@pytest.mark.parametrize(
    ("gigabytes", "named"),
    [(2, None), (4, "Qwen3.5-0.8B"), (8, "Qwen2.5-1.5B-Instruct"), (16, "SmolLM3-3B"), (64, "SmolLM3-3B")],
)
def test_the_doctor_names_the_model_that_a_machine_has_memory_for(
    tmp_path: Path, gigabytes: int, named: str | None
) -> None:
    told = doctor.larger(LocalChat(tmp_path, None, 2048), gigabytes * 10**9)
    assert told == named or (named or "") in (told or "").split("`")[1]


@pytest.mark.parametrize(
    ("name", "told"), [("Qwen3-0.6B", r"xllamacpp 2026\.10 and newer load it"), ("own", "upgrade")]
)
def test_a_model_that_llama_cpp_does_not_know_is_told_with_its_architecture(
    tmp_path: Path, name: str, told: str
) -> None:
    key, kind = b"general.architecture", b"qwen99"
    header = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", len(key)) + key
    (tmp_path / name).mkdir()
    (tmp_path / name / "model.gguf").write_bytes(header + struct.pack("<IQ", 8, len(kind)) + kind)
    chat = LocalChat(tmp_path, name, 2048)
    with pytest.raises(BackendError, match=rf"{name} cannot be loaded .*'qwen99'.*{told}"):
        asyncio.run(chat.complete({"messages": [{"role": "user", "content": "hello"}]}))


# A model is used once it is here, on both transports.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Path:
    """MODELS_DIR with the default models, a chat model, an embedder and a reranker of our own."""
    folder = tmp_path_factory.mktemp("models")
    for default in (SMOLLM2, MINILM):
        shutil.copy(path_of(default, models_dir), path_of(default, folder))
    models = ModelsFolder(folder)
    source = tmp_path_factory.mktemp("source")
    _static(source / "short-vectors")
    _cross_encoder(source / "words-in-common", path_of(MINILM, models_dir))
    shutil.copy(path_of(SMOLLM2, models_dir), source / "Own Chat.gguf")
    for name in ("Own Chat.gguf", "short-vectors", "words-in-common"):
        models.pull(str(source / name), "")
    return folder


def _static(folder: Path) -> None:
    """wordllama's first 64 dimensions."""
    from safetensors.numpy import load_file, save_file

    folder.mkdir()
    (table,) = load_file(WORDLLAMA.folder / "weights.safetensors").values()
    save_file({"embeddings": np.ascontiguousarray(table[:, :64])}, folder / "model.safetensors")
    shutil.copy(WORDLLAMA.folder / "tokenizer.json", folder)


def _cross_encoder(folder: Path, minilm: Path) -> None:
    """Counts the pairs of equal tokens, of the query and the text together, less what each has with itself."""
    import onnxruntime

    folder.mkdir()
    session = onnxruntime.InferenceSession(minilm, providers=["CPUExecutionProvider"])
    words = json.loads(session.get_modelmeta().custom_metadata_map["tokenizer"])
    words["truncation"] = words["padding"] = None
    (folder / "tokenizer.json").write_text(json.dumps(words))
    ids, kinds = ("input_ids", "token_type_ids")
    nodes = [
        helper.make_node("Cast", [kinds], ["second"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "second"], ["first"]),
        helper.make_node("Unsqueeze", [ids, "axis2"], ["down"]),
        helper.make_node("Unsqueeze", [ids, "axis1"], ["across"]),
        helper.make_node("Equal", ["down", "across"], ["equal"]),
        helper.make_node("Cast", ["equal"], ["same"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["first", "axis2"], ["of_query"]),
        helper.make_node("Unsqueeze", ["second", "axis1"], ["of_text"]),
        helper.make_node("Mul", ["same", "of_query"], ["part"]),
        helper.make_node("Mul", ["part", "of_text"], ["both"]),
        helper.make_node("ReduceSum", ["both", "axes"], ["count"], keepdims=0),
        helper.make_node("Sub", ["count", "two"], ["less"]),
        helper.make_node("Unsqueeze", ["less", "axis1"], ["logits"]),
    ]
    constants = [
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("two", TensorProto.FLOAT, [], [2.0]),
        helper.make_tensor("axis1", TensorProto.INT64, [1], [1]),
        helper.make_tensor("axis2", TensorProto.INT64, [1], [2]),
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "m"]) for name in (ids, kinds)]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1])]
    graph = helper.make_graph(nodes, "words-in-common", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    save_model(model, folder / "model.onnx")


@pytest.fixture(scope="module", params=["in process", "over HTTP"])
def pulled(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LLMBackendClient]:
    data_dir = tmp_path_factory.mktemp("data")
    if request.param == "in process":
        with LLMBackendClient(
            transport=LocalTransport(Settings(data_dir=data_dir, models_dir=folder))
        ) as client:
            yield client
        return
    with serving(data_dir, models_dir=folder) as server, LLMBackendClient(server.url) as client:
        yield client


def test_a_pulled_chat_model_answers_by_its_own_name(pulled: LLMBackendClient) -> None:
    assert "Own-Chat" in [model.id for model in pulled.models() if model.type == "chat"]
    reply = pulled.chat("Say hello.", max_tokens=8)
    assert reply
    assert reply.model == "Own-Chat"
    pulled.rag_ingest(["Employees get thirty days of vacation."], collection="pulled")
    answer = pulled.rag_query("How many days of vacation?", collection="pulled")
    assert answer.model == "Own-Chat"
    pulled.delete_collection("pulled")


def test_a_pulled_embedder_embeds(pulled: LLMBackendClient) -> None:
    vector = pulled.embed_single("word")
    assert len(vector) == 64
    assert pulled.embed(["word"]).model == "short-vectors"


def test_a_pulled_reranker_reranks(pulled: LLMBackendClient) -> None:
    ranked = pulled.rerank("red button", ["the blue lever", "press the red button", "a red door"])
    assert [one.index for one in ranked] == [1, 2, 0]
    assert all(0 <= one.score <= 1 for one in ranked)
    pulled.rag_ingest(
        [f"A {colour} thing is number {n}." for n, colour in enumerate(["red", "blue", "green"])],
        collection="ranked",
    )
    hits = pulled.rag_search("blue thing", collection="ranked", rerank=True)
    assert hits[0].text.startswith("A blue")
    pulled.delete_collection("ranked")


def test_collections_of_another_embedder_say_so_and_are_reindexed(folder: Path, tmp_path: Path) -> None:
    before = Settings(data_dir=tmp_path, models_dir=folder, embedding_model=WORDLLAMA.name)
    with LLMBackendClient(transport=LocalTransport(before)) as client:
        client.rag_ingest(["Employees get thirty days of vacation."], collection="old")
    after = Settings(data_dir=tmp_path, models_dir=folder, embedding_model="short-vectors")
    with LLMBackendClient(transport=LocalTransport(after)) as client:
        with pytest.raises(Conflict, match="reindex_collection"):
            client.rag_ingest(["Gyms open at six."], collection="old")
        client.rag_ingest(["Gyms open at six."], collection="new")
        client.reindex_collection("old")
        assert client.rag_search("vacation", collection="old", mode="dense")[0].text.startswith("Employees")
        models = {one.name: one.embedding_model for one in client.list_collections()}
        assert set(models) == {"old", "new"}
        assert set(models.values()) == {"short-vectors"}


def test_choosing_goes_back_to_the_defaults(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "models", copy_function=os.link)
    models = ModelsFolder(tmp_path / "models")
    assert models.chosen("chat") == "Own-Chat"
    assert models.choose("smollm2-135m-instruct") == "chat"
    assert models.chosen("chat") is None
    assert models.choose("own-chat") == "chat"
    shutil.rmtree(tmp_path / "models" / "Own-Chat")
    assert models.chosen("chat") is None, "what is chosen and gone is not waited for"
    with pytest.raises(InvalidRequest, match="models list"):
        models.choose("nothing")


def test_a_model_that_is_set_and_not_here_tells_how_to_get_it(tmp_path: Path) -> None:
    for setting in ("chat_model", "embedding_model"):
        name = "Qwen3-0.6B" if setting == "chat_model" else "potion-retrieval-32M"
        options = Settings(data_dir=tmp_path, models_dir=tmp_path, **{setting: name})  # type: ignore[arg-type]
        with pytest.raises(BackendError, match=f"llmbackend models pull {name}"):
            LLMBackendClient(transport=LocalTransport(options)).chat("hello")
