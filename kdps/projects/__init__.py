# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Home of the bundled methods: ``projects/<Name>/<package>`` is ``kdps.projects.<package>``."""
