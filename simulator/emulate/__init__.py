"""The twin: a scenario played by a real broker and real agents on this machine, beside the simulation of it."""
