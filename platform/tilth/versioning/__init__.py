"""What a partition holds, of which code and inputs it was made, and whether that is still so."""
