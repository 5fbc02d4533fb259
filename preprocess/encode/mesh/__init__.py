"""Encodes meshes and simulations into the members `mesh.npz` and `fields.npy`."""
