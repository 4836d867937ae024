"""Benchmarks: ``python -m benchmarks`` runs this project and its peers side by side. Every file asks one question."""
