"""Wire package `mesh.v1`: each `.proto` lies beside the modules that are made from it."""
