"""OpenAI's Responses API on top of chat completions: requests become chats, replies become events and items,
which are stored."""
