"""Who runs local training: interchangeable, and equal to rounding."""
