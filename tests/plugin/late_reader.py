"""A reader whose module takes long to import, in the process that reads."""

from __future__ import annotations

import sys
import time

from llmbackend.plugins import reader

if sys.argv[0].endswith("process.py"):
    time.sleep(3)


@reader(".late")
def late(data: bytes) -> str:
    return data.decode()
