"""From files to steps: sources, formats, the token cache, packing and the loader."""
