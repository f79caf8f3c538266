"""`python -m local_llm` is `local-llm`."""

from local_llm.cli import main

if __name__ == "__main__":
    main()
