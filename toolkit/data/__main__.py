"""`python -m toolkit.data [FOLDER]`: fetch the data sets for use without a network, and verify them."""

import argparse
import os

from toolkit.data.files import FILES, download


def main() -> int:
    """Return the status: 0 where all files are right, 1 where not, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(prog="download", description="Fetches and verifies the data sets.")
    parser.add_argument("folder", nargs="?", help="where to (default: the folder that Keras itself uses)")
    parser.add_argument("--only", choices=FILES, help="one data set instead of all six")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return 0 if download(arguments.folder, arguments.only) else 1
    except KeyboardInterrupt:
        print("Interrupted. Run it again to go on: what is complete stays.")
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
