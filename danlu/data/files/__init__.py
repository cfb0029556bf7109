"""Files of rows: where they are, how their bytes are unpacked, what kind of rows they hold, and what is damaged."""
