"""Meshes and simulations as their publishers lay them out."""
