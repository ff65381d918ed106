"""Batch interfaces of OpenAI, Anthropic and Gemini in the test endpoint: they count, bill and misbehave."""
