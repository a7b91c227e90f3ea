"""Wire packages of the mesh, by version."""
