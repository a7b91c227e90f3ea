"""What `mesh`, `mesh-agent` and `mesh-sim` have in common at a terminal. It knows of none of them, nor of the mesh."""
