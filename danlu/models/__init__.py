"""Models: found, loaded, adapted, run and saved."""

import logging

# peft imports bitsandbytes wherever it is installed, and that asks on some processors for code from the hub
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
