# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Where each entry of a public implementation's weights goes."""
