"""The built-in job types. Importing this registers them."""

from . import built_in, chats, responses

__all__ = ["built_in", "chats", "responses"]
