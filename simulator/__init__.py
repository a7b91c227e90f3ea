"""The simulator: the broker's own dispatcher in virtual time. See `simulator.world`."""
