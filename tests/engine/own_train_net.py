# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The training script of someone with a data set of their own."""

import os
import sys
from pathlib import Path

from kdps.train_net import main
from kdps.utils.testing_set import register_tiny_sets

register_tiny_sets(Path(os.environ["TINY_SET"]))

if __name__ == "__main__":
    sys.exit(main())
