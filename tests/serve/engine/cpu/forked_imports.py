"""What the fork server of `forked_family` imports: quickly, and it knows in which process that was."""

from __future__ import annotations

import os

from serve.engine.orphan import follow_starter

follow_starter()
SERVER_ID = os.getpid()
