"""Meshes as graphs: surfaces and steps of simulations."""
