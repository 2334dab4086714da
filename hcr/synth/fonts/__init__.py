"""What the pen takes from handwriting fonts: their forms, and the proportions of their hands."""
