"""What was used, on both transports."""

from __future__ import annotations

import pytest

from llmbackend import InvalidRequest, LLMBackendClient


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


def test_days_in_the_wrong_order_are_refused(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest, match=r"since \(2026-12-01\) is after until \(2026-11-30\)"):
        client.usage(since="2026-12-01", until="2026-11-30")
    assert client.usage(since="2999-01-01") == []
