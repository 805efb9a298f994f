"""Who calls, and what they may do: projects, their keys, and the one function that decides."""
