"""Retrieval: queries and documents embedded in all lanes, and nDCG@10 of the documents found."""
