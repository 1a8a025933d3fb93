"""Study recipes: one lesson a file. `python -m recipes` lists them."""

import os
import sys

from toolkit import quiet

# Both are read once, when Keras and TensorFlow are first imported, which every recipe does at once.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As a command, or in a notebook; `toolkit.run.cli` and `toolkit.notebook.start` let go.
if sys.argv[0] == "-m" or "ipykernel" in sys.modules:
    quiet.hold()
