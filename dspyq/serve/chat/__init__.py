"""Programs that chat, in OpenAI's form."""
