"""Questions into passages, and how well that works."""
