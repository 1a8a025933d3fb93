"""Study recipes: one lesson a file. `python -m recipes` lists them."""

import os
import signal
import sys

command = sys.argv[0] == "-m"  # run as a command, not imported
module = sys.orig_argv[sys.orig_argv.index("-m") + 1] if "-m" in sys.orig_argv else ""
own = command and module.split(".")[0] == "recipes"  # not the command of one who imports recipes
if own and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `begin`, Ctrl-C just ends the imports

from pathlib import Path  # noqa: E402

from toolkit import quiet  # noqa: E402

# Both are read once, when Keras and TensorFlow are first imported, which every recipe does at once.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "ipykernel" in sys.modules:  # in a notebook
    quiet.start()
elif command:
    quiet.let_readers_leave()
    recipe = Path(__file__).with_name(f"{module.removeprefix('recipes.')}.py")
    if module.startswith("recipes.") and not recipe.name.startswith("_") and recipe.is_file():
        from toolkit.run import begin

        begin(recipe, sys.argv[1:])
