"""`python -m local_llm_worker.pooling`."""

import sys

from local_llm_worker.pooling.program import main

sys.exit(main())
