"""Record of a session as data and files: read, written, analysed and exported without torch."""
