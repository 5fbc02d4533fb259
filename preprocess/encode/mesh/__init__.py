"""Meshes and simulations to the members `mesh.npz` and `fields.npy`."""
