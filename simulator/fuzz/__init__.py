"""Deterministic simulation: a mesh in memory under seeded chance, judged by the promises. See `simulator.fuzz.mesh`."""
