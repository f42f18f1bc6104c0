"""Benchmarks: `python -m benchmarks ops` and `python -m benchmarks run FOLDER`."""
