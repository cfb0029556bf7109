"""Learning-rate schedules: each one is a function of how many optimiser steps were made."""
