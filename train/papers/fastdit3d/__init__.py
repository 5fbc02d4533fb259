"""FastDiT-3D (Mo et al., 2023): masked diffusion of point clouds over voxels."""
