from __future__ import annotations

import gc


def pytest_collection_finish() -> None:
    """TensorFlow's hundreds of thousands of objects live as long as the tests; collections need not visit them."""
    gc.freeze()
