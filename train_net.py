#!/usr/bin/env python
# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Train and evaluate person-search models.

A script for a method of your own looks the same, with one more line that imports your modules so
that what they register is known here.
"""

import sys

from kdps.train_net import main

if __name__ == "__main__":
    sys.exit(main())
