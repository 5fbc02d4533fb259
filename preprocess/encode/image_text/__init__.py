"""Images with texts: the encoder of both."""
