"""Feed: batches from a pack or of drawn handwriting, in an order that follows from the seed."""

# Where a split of a pack may be held while it is read; settings name them without torch.
CACHES = ("none", "ram", "device")
