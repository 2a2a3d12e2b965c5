# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from hypothesis import settings

# A time limit per example would make tests fail on a busy machine.
settings.register_profile("kdps", deadline=None)
settings.load_profile("kdps")
