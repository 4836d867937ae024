"""Timelines: what ran where and when, recorded by the arena, and how it is told and drawn."""
