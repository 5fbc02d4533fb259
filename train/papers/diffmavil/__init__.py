"""DiffMAViL (Nunez et al., 2023): masked video and sound, reconstructed from noise."""
