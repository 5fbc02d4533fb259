"""Meshes as graphs: surfaces and simulation steps."""
