"""The wire contract: sources, the modules generated from them, and their generator."""
