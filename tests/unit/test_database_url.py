"""Which databases DATABASE_URL may name."""

from __future__ import annotations

import pytest

from llmbackend import BackendError
from llmbackend.storage import database


@pytest.mark.parametrize("url", ["mysql://host/name", "oracle://host/name"])
def test_a_database_of_another_kind_is_refused_as_such(url: str) -> None:
    with pytest.raises(BackendError) as caught:
        database.connect(url)
    kind = url.partition(":")[0]
    assert caught.value.message.startswith(
        f"DATABASE_URL cannot be used: it is for {kind}; give one like postgresql://"
    )
