"""Numba threading layer ``composable``: select it with ``NUMBA_THREADING_LAYER=composable``."""
