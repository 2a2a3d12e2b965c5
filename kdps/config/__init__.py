# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from kdps.config.defaults import add_kdps_config, get_cfg

__all__ = ["add_kdps_config", "get_cfg"]
