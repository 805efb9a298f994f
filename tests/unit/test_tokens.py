"""Tokens are counted word by word, and are as many as the tokenizer makes of the whole text."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.utils import get_tokenizer

from llmbackend.chunks.tokens import tokens_of

DEMO = Path(__file__).parents[2] / "llmbackend" / "demo" / "documents"

SPACES = [" "] * 6 + [*"\n\t\r\v\f\x1c\x85\u00a0\u2003\u2028", "\r\n"]
OTHERS = [*"ab1.,'s-(_é東ßД²٣🙂", "e\u0301", "12345", "'ll", "word", "<|endoftext|>"]


@pytest.mark.parametrize("seed", range(5))
def test_they_are_as_many_as_of_the_whole_text(seed: int) -> None:
    tokenize = get_tokenizer()
    chance = random.Random(seed)
    for _ in range(4000):
        text = "".join(chance.choices(SPACES + OTHERS, k=chance.randint(0, 14)))
        assert len(tokens_of(text)) == len(tokenize(text)), repr(text)


@pytest.mark.parametrize("size", [32, 64, 256])
def test_texts_are_split_where_llamaindex_splits_them(size: int) -> None:
    text = "\n\n".join(file.read_text("utf-8") for file in sorted(DEMO.rglob("*.md")))
    assert len(text) > 2000
    theirs = SentenceSplitter(chunk_size=size, chunk_overlap=8, paragraph_separator="\n\n")
    ours = SentenceSplitter(chunk_size=size, chunk_overlap=8, paragraph_separator="\n\n", tokenizer=tokens_of)
    assert ours.split_text(text) == theirs.split_text(text)


AT_ONCE = """
import os, threading, time
import llama_index.core.node_parser, llama_index.core.workflow, tiktoken
from llmbackend.chunks.tokens import tokens_of

contains = os._Environ.__contains__

def slowly(self, key):
    found = contains(self, key)
    time.sleep(0.2 if key == "TIKTOKEN_CACHE_DIR" else 0)  # as on a busy machine: LlamaIndex sets it for a moment
    return found

os._Environ.__contains__ = slowly
counts = []
threads = [threading.Thread(target=lambda: counts.append(len(tokens_of("one two")))) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*counts)
"""


def test_the_first_to_count_may_be_several_threads() -> None:
    done = subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True, timeout=120)
    assert (done.stdout.split(), done.stderr) == (["2"] * 4, "")
