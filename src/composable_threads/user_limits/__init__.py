"""Limits that users set in BLAS libraries themselves, through threadpoolctl."""
