"""Files of rows: where they are, how their bytes are unpacked, and what kind of rows they hold."""
