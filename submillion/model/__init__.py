"""The encoder, its tokens and adapters, the packed pass, and the classifier that they make."""
