"""The kinds of job that are built in: what an attempt does. Importing this registers them."""

from . import built_in, chats, responses

__all__ = ["built_in", "chats", "responses"]
