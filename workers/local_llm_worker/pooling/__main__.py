"""`python -m local_llm_worker.pooling`."""

import sys

from local_llm_worker import parent_death
from local_llm_worker.pooling.program import main

parent_death.install()
sys.exit(main())
