"""A user's program, type-checked as strictly as mypy does, against what is installed (`make check`).

Each `type: ignore` is a mistake made on purpose: that it is found is told by the one that was not needed otherwise.
"""

from __future__ import annotations

import llm_client
from llmbackend import LLMBackendClient

client = LLMBackendClient("http://localhost:8888", "a-key")

# The mistakes.
client.rag_serch("When is lunch?", "hours")  # type: ignore[attr-defined]
client.rag_search("When is lunch?", "hours", top_k="three")  # type: ignore[arg-type]
llm_client.LLMBackendClient(port=8888)  # type: ignore[call-arg]
