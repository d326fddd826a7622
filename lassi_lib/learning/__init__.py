"""The fair encoder R, the objectives that train it, and the classifier C on top."""
