"""AVSiam (Lin & Bertasius, 2024): one encoder for frames and sounds."""
