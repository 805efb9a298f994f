"""Data directories of older versions."""

from __future__ import annotations

import base64
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from llmbackend import LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings

V0_1 = """
CREATE TABLE jobs (
    number INTEGER NOT NULL, id VARCHAR(36) NOT NULL, type VARCHAR(64) NOT NULL, params TEXT NOT NULL,
    status VARCHAR(16) NOT NULL, done INTEGER NOT NULL, total INTEGER NOT NULL, stage VARCHAR(64) NOT NULL,
    attempts INTEGER NOT NULL, result TEXT, error TEXT, created_at VARCHAR(32) NOT NULL, finished_at VARCHAR(32),
    PRIMARY KEY (number), UNIQUE (id)
);
CREATE INDEX jobs_by_status ON jobs (status);
"""


def test_jobs_of_version_0_1_are_kept_and_done(tmp_path: Path) -> None:
    vectors = np.eye(3, dtype="<f4")
    packed = base64.b64encode(vectors.tobytes()).decode()
    result = {"model": "m", "dimension": 3, "count": 3, "embeddings": packed}
    moment = "2999-01-01T00:00:00.000+00:00"
    todo = json.dumps({"texts": ["a", "b"], "model": None})
    rows = [
        ("done", "completed", 1, json.dumps(result), None, moment),
        ("failed", "failed", 1, None, json.dumps({"code": "backend", "message": "away"}), moment),
        ("running", "running", 1, None, None, None),
        ("queued", "queued", 0, None, None, None),
    ]
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection, connection:
        connection.executescript(V0_1)
        for name, status, attempts, has, error, finished in rows:
            connection.execute(
                "INSERT INTO jobs (id, type, params, status, done, total, stage, attempts, result, error, "
                "created_at, finished_at) VALUES (?, 'batch_embed', ?, ?, 0, 0, '', ?, ?, ?, ?, ?)",
                (name, todo, status, attempts, has, error, moment, finished),
            )
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client:
        for name in ("running", "queued"):
            assert client.wait_for_job(name, 60)["count"] == 2
        assert client.get_job_status("running").attempts == 2
        assert np.array_equal(client.wait_for_job("done").embeddings.numpy(), vectors)
        assert client.get_job_status("failed").error.message == "away"
        assert [job.id for job in client.list_jobs()] == [row[0] for row in reversed(rows)]
        client.wait_for_job(client.submit_job("batch_embed", {"texts": ["new"]}), 60)
    with LLMBackendClient(
        transport=LocalTransport(Settings(data_dir=tmp_path))
    ) as client:  # nothing more to do
        assert len(client.list_jobs()) == 5
