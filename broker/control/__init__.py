"""Use-cases of operators, shared by every way in."""
