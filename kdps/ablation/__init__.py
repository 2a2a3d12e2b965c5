# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Many trainings that differ in one thing each, and one table of what it does."""
