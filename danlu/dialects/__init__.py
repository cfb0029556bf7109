"""Other tools' words, read as a recipe's: the launch files of DeepSpeed, Accelerate and FairScale."""
