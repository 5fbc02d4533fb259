"""What a mask is: its grid, its draw, its ratio, its batch."""
