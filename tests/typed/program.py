"""A user's program, type-checked as strictly as mypy does, against what is installed (`make check`).

Each `type: ignore` is a mistake made on purpose. That it is found is checked, too: one that was not needed is an error.
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

import llm_client
from llmbackend import (
    Answer,
    AnswerStream,
    AsyncLLMBackendClient,
    Embeddings,
    EmbeddingsFile,
    Hit,
    IngestReport,
    LLMBackendClient,
    Reply,
    ReplyStream,
)


class Order(BaseModel):
    late: bool
    weeks: int


client = LLMBackendClient("http://localhost:8888", "a-key")

answer: Answer = client.rag_query("When is lunch?", "hours")
quote: str = answer.sources[0].quote
score: float = answer.sources[0].score
fit: float | None = answer.explanation.fit if answer.explanation else None
pieces: AnswerStream = client.rag_query("When is lunch?", "hours", stream=True)
first: Hit = client.rag_search("lunch", "hours")[0]
year: int = first.metadata["year"]
texts: list[str] = [hit.text for hit in client.rag_search("lunch", "hours", filters={"year": {"gte": 2020}})]

reply: Reply = client.chat("Hello")
stream: ReplyStream = client.chat("Hello", stream=True)
order: Order = client.chat("Is it late?", schema=Order).parsed
weeks: int = order.weeks
data: dict[str, int] = client.chat("Is it late?", schema={"type": "object"}).parsed
tool: str = reply.tool_calls[0].name

report: IngestReport = client.rag_ingest(["a text"], "hours", metadata={"team": "hr"})
added: int = report.added
names: list[str] = [one.name for one in client.list_collections()]
vectors: Embeddings = client.batch_embed(["a text"])
written: EmbeddingsFile = client.batch_embed(["a text"], out="vectors.npy")
status: str = client.get_job_status("an-id").status
working: bool = client.health().status == "ok"


async def main() -> str:
    async with AsyncLLMBackendClient() as waiting:
        found = await waiting.rag_query("When is lunch?", "hours")
        async for piece in await waiting.chat("Hello", stream=True):
            print(piece.upper())
        return found.sources[0].quote


asyncio.run(main())

# The mistakes.
client.rag_serch("When is lunch?", "hours")  # type: ignore[attr-defined]
client.rag_search("When is lunch?", "hours", top_k="three")  # type: ignore[arg-type]
llm_client.LLMBackendClient(port=8888)  # type: ignore[call-arg]
answer.sources[0].quotation  # type: ignore[attr-defined]  # noqa: B018
client.chat("Is it late?", schema=Order).parsed.month  # type: ignore[attr-defined]  # noqa: B018
number: int = client.chat("Hello", stream=True)  # type: ignore[assignment]
