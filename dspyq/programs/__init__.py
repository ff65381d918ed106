"""DSPy programs and their language models; the only room that imports DSPy."""
