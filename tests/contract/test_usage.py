"""What was used, on both transports."""

from __future__ import annotations

from llmbackend import LLMBackendClient


def test_usage_adds_up_and_is_shown_as_a_table_and_bars(client: LLMBackendClient) -> None:
    import matplotlib

    matplotlib.use("Agg")

    def embedded() -> int:
        return sum(row.embedded_tokens for row in client.usage(by="operation") if row.operation == "embed")

    before = embedded()
    tokens = client.embed(["a text that nobody embedded before usage was counted"]).usage.total_tokens
    assert embedded() == before + tokens > before
    rows = client.usage(by="operation,day", since="1d")
    assert "embedded tokens" in rows._repr_html_()
    assert len(rows.plot().patches) == 3 * len(rows)
