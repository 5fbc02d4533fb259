"""What is known of each kind of component, and how it is checked."""
