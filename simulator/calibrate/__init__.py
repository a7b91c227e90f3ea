"""Profiles for scenarios: measured on a mesh that is started for it, or read from a broker's history of jobs."""
