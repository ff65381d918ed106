"""The measured code. Each module runs in processes of its own; the benchmarks start those and read the outcome."""
