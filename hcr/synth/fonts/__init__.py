"""What drawn handwriting takes from fonts: their forms, and their proportions."""
