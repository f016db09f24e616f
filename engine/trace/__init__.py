"""What a session showed, as data: read, kept, written and exported without torch."""
