"""What lies inside members: boxes, frames and packets, by offset."""
