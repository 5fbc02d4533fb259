"""Video clips with sound: their loader, on one clock."""
