"""Pure mathematics: standard library and numpy, time as an argument."""
