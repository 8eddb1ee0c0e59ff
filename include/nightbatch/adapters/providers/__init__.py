"""One file a vendor of batch APIs."""
