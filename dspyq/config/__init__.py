"""The configuration: settings, programs and their signatures, and the codec of their values."""
