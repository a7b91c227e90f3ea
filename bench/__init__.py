"""The measuring harness: `python -m bench` measures the mesh on this machine and says what it reached."""
