"""The data path beside nginx, a plain Starlette + httpx proxy and LiteLLM: `make bench-proxy`."""
