"""OpenAI's Responses on chat completions: what is asked as a chat, what is said as events and items, and what is kept."""
